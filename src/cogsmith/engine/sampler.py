"""From logits to tokens: penalties, bias, masks, log-probabilities, draws.

Log-probabilities are `log_softmax(logits + bias)` in float32, after the penalties and before temperature, top_k and
top_p: normalised over what a mask leaves, and the same at any temperature. Rows of one step may differ in everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from cogsmith.engine.answer import Answer, Wanted, read_answers
from cogsmith.engine.request import GenerateRequest, Sampling, ScoreRequest
from cogsmith.engine.sequence import Sequence as TokenSequence

_NUCLEUS_CANDIDATES = 1024

# A client may send any finite double; beyond this, float32 arithmetic would turn into infinities and NaN.
_LARGEST = 1e30


def dense_bias(bias: Mapping[int, float], head_size: int) -> torch.Tensor | None:
    """Spread a sparse bias over the model's head: float32 `[head_size]`, None for no bias.

    Ids beyond the head are ignored: a client's tokenizer may be larger. Made with numpy, so that a thread other
    than the engine's can do it without opening a second pool of torch threads.
    """
    if not bias:
        return None
    ids = np.fromiter(bias.keys(), np.int64, len(bias))
    values = np.fromiter(bias.values(), np.float64, len(bias)).clip(-_LARGEST, _LARGEST)
    inside = ids < head_size
    dense = np.zeros(head_size, np.float32)
    dense[ids[inside]] = values[inside]
    return torch.from_numpy(dense)


def sample(logits: torch.Tensor, sequences: Sequence[TokenSequence], vocab_size: int) -> list[Answer]:
    """Draw the next token of each row.

    `logits` is `[rows, head_size]`, row i of `sequences[i]`, whose requests are all GENERATE; it may be overwritten.
    Only ids below `vocab_size` are drawn or listed; the normalisation counts the whole head, as the model was trained,
    or what a mask leaves of it.
    """
    requests = [_generate_request(sequence) for sequence in sequences]
    scores = logits.float()
    for row, sequence in zip(scores, sequences, strict=True):
        _adjust(row, sequence)
    logprobs = torch.log_softmax(scores, dim=-1)
    tokens = _choose(scores[:, :vocab_size], sequences, requests)
    wanted = [Wanted(request.top_logprobs, request.logprob_ids) for request in requests]
    return read_answers(logprobs, tokens, wanted, vocab_size)


def score(logits: torch.Tensor, targets: Sequence[int], request: ScoreRequest, vocab_size: int) -> list[Answer]:
    """Return what the model says of `targets[i]` under `logits[i]`, `[targets, head_size]`, as it is, in float32."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    tokens = torch.tensor(targets, device=logits.device)
    return read_answers(
        logprobs, tokens, [Wanted(request.top_logprobs, request.logprob_ids)] * len(targets), vocab_size
    )


def _generate_request(sequence: TokenSequence) -> GenerateRequest:
    if not isinstance(sequence.request, GenerateRequest):
        raise TypeError("only GENERATE requests are sampled")
    return sequence.request


def _adjust(scores: torch.Tensor, sequence: TokenSequence) -> None:
    """Apply penalties, then bias, then masks, to one row in place."""
    sampling = _generate_request(sequence).sampling
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(list(set(sequence.tokens)), device=scores.device)
        values, penalty = scores[seen], _bounded(sampling.repetition_penalty)
        scores[seen] = torch.where(values < 0, values * penalty, values / penalty)
    if sequence.generated and (sampling.presence_penalty or sampling.frequency_penalty):
        ids = torch.tensor(list(sequence.generated), device=scores.device)
        counts = torch.tensor(list(sequence.generated.values()), device=scores.device)
        scores[ids] -= _bounded(sampling.presence_penalty) + _bounded(sampling.frequency_penalty) * counts
    if sequence.bias is not None:
        sequence.bias = sequence.bias.to(scores.device)  # once; the next step finds it there
        scores += sequence.bias
    scores.clamp_(-_LARGEST, _LARGEST)
    if sequence.banned is not None:
        sequence.banned.apply(scores, sequence.num_generated)


def _bounded(value: float) -> float:
    return max(-_LARGEST, min(value, _LARGEST))


def _choose(
    scores: torch.Tensor, sequences: Sequence[TokenSequence], requests: Sequence[GenerateRequest]
) -> torch.Tensor:
    # The likeliest token is read off the scores: two of them can round to one log-probability.
    tokens = scores.argmax(dim=-1)
    for row, (sequence, request) in enumerate(zip(sequences, requests, strict=True)):
        if request.sampling.temperature > 0:
            tokens[row] = _draw(scores[row], request.sampling, sequence.random())
    return tokens


def _draw(scores: torch.Tensor, sampling: Sampling, uniform: float) -> torch.Tensor:
    """Draw one id from `scores` `[vocab_size]` by inverting the cumulative distribution at `uniform` in [0, 1).

    Temperature first, then top_k, then top_p over what top_k left, as transformers orders them. One number per
    token from the stream's own generator: a stream's draws do not depend on its batch mates.
    """
    # Subtracting the maximum before dividing keeps a very small temperature from overflowing.
    scaled = (scores.double() - scores.max()) / sampling.temperature
    if 0 < sampling.top_k < len(scaled):
        scaled, ids = scaled.topk(sampling.top_k)
        probabilities = torch.softmax(scaled, dim=-1)
        return ids[_invert(_nucleus(probabilities, sampling.top_p), uniform)]
    probabilities = torch.softmax(scaled, dim=-1)
    if sampling.top_p >= 1.0:
        return _invert(probabilities, uniform)
    candidates, ids = _likeliest(probabilities, sampling.top_p)
    return ids[_invert(_nucleus(candidates, sampling.top_p), uniform)]


def _likeliest(probabilities: torch.Tensor, mass: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest ids that hold at least `mass` between them, sorted: a full sort is rarely needed."""
    count = min(_NUCLEUS_CANDIDATES, len(probabilities))
    while True:
        top, ids = probabilities.topk(count)
        if count == len(probabilities) or top.sum() >= mass:
            return top, ids
        count = min(8 * count, len(probabilities))


def _nucleus(sorted_probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the smallest prefix whose sum reaches `top_p` (Holtzman et al. 2020); always the first."""
    before = sorted_probabilities.cumsum(-1) - sorted_probabilities
    kept = before < top_p
    kept[0] = True
    return sorted_probabilities * kept


def _invert(weights: torch.Tensor, uniform: float) -> torch.Tensor:
    """Index drawn in proportion to `weights`; never one of weight zero."""
    cumulative = weights.cumsum(-1)
    target = cumulative[-1] * uniform
    index = torch.searchsorted(cumulative, target, right=True)
    return torch.minimum(index, weights.nonzero()[-1, 0])
