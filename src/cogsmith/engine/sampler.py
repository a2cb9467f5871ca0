"""From logits to tokens: penalties, bias, masks, log-probabilities, draws.

Log-probabilities are `log_softmax(logits + bias)` in float32, after the penalties and before temperature, top_k and
top_p: normalised over what a mask leaves, and the same at any temperature. Rows of one step may differ in everything.

All rows of a step are worked on together, in a number of tensor operations that does not grow with theirs, and the
host waits for the device once, to read the answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cogsmith.engine.answer import Answer, Results, Wanted, read_answers
from cogsmith.engine.draw import Draw, choose
from cogsmith.engine.masks import add_dense, exclude
from cogsmith.engine.penalties import LARGEST, penalise_presence, penalise_repetition
from cogsmith.engine.ranking import likeliest, padded
from cogsmith.engine.request import GenerateRequest
from cogsmith.engine.rules import Rules
from cogsmith.engine.sequence import Sequence as TokenSequence
from cogsmith.engine.transfer import to_device

_FEW_LISTED = 64
"""Rows of scored tokens that want so many alternatives at most are ranked together."""

_WIDENING = 8
"""How many times more ids are ranked for a nucleus that reaches beyond those there were."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A sequence, what it was asked, and what that means for the sampler."""

    sequence: TokenSequence
    request: GenerateRequest
    rules: Rules


def sample(logits: torch.Tensor, sequences: Sequence[TokenSequence], vocab_size: int) -> list[Answer]:
    """Draw the next token of each row.

    `logits` is `[rows, head_size]`, row i of `sequences[i]`, whose requests are all GENERATE and have rules.
    Only ids below `vocab_size` are drawn or listed; the normalisation counts the whole head, as the model was trained,
    or what a mask leaves of it.
    """
    rows = [_row(sequence) for sequence in sequences]
    scores = padded(logits)
    _penalise(scores, rows)
    scores[:, : logits.shape[1]].clamp_(-LARGEST, LARGEST)
    _mask(scores[:, : logits.shape[1]], rows)
    logprobs = torch.log_softmax(scores, dim=-1)
    scores[:, vocab_size:] = -math.inf
    draws = [_draw(row, vocab_size, logits) for row in rows]
    wanted = [Wanted(row.request.top_logprobs, row.request.logprob_ids, row.rules.logprob_ids) for row in rows]
    num_ranked = max(draw.num_ranked(vocab_size) for draw in draws)
    return _answers(scores, logprobs, draws, wanted, vocab_size, num_ranked)


def score(logits: torch.Tensor, targets: Sequence[int], wanted: Sequence[Wanted], vocab_size: int) -> list[Answer]:
    """Return what the model says of `targets[i]` under `logits[i]`, `[targets, head_size]`, as it is, in float32."""
    scores = padded(logits)
    logprobs = torch.log_softmax(scores, dim=-1)
    scores[:, vocab_size:] = -math.inf
    tokens = to_device(np.array(targets, np.int64)[:, None], logits.device)
    answers: dict[int, Answer | None] = {}
    for places in _alike(wanted):
        rows = slice(None) if len(places) == len(wanted) else to_device(np.array(places), logits.device)
        some = [wanted[place] for place in places]
        most = min(max(want.top_logprobs for want in some), vocab_size)
        listed = likeliest(scores[rows], most).ids if most else tokens[rows, :0]
        always = torch.ones_like(tokens[rows])
        read = read_answers(Results(logprobs[rows], tokens[rows], listed, always, always), some)
        answers |= zip(places, read, strict=True)
    return [answer for place in range(len(targets)) if (answer := answers[place])]


def _alike(wanted: Sequence[Wanted]) -> list[list[int]]:
    """The places of rows that want about as many alternatives, together.

    One request may want the whole vocabulary for one token: the hundreds of others in its step are not ranked so.
    """
    places: dict[int, list[int]] = {}
    for place, want in enumerate(wanted):
        places.setdefault(max(_FEW_LISTED, want.top_logprobs).bit_length(), []).append(place)
    return list(places.values())


def _row(sequence: TokenSequence) -> _Row:
    if not isinstance(sequence.request, GenerateRequest) or not isinstance(sequence.rules, Rules):
        raise TypeError("only GENERATE requests with their rules are sampled")
    return _Row(sequence, sequence.request, sequence.rules)


def _penalise(scores: torch.Tensor, rows: Sequence[_Row]) -> None:
    repetition, presence = [], []
    for place, row in enumerate(rows):
        sampling = row.request.sampling
        counts_too = bool(sampling.presence_penalty or sampling.frequency_penalty)
        if row.rules.prompt_ids is None and not counts_too:
            continue
        generated = row.sequence.generated
        ids = np.fromiter(generated.keys(), np.int64, len(generated))
        if row.rules.prompt_ids is not None:
            repetition.append((place, np.concatenate([row.rules.prompt_ids, ids]), sampling))
        if counts_too:
            presence.append((place, ids, np.fromiter(generated.values(), np.int64, len(generated)), sampling))
    penalise_repetition(scores, repetition)
    penalise_presence(scores, presence)


def _mask(scores: torch.Tensor, rows: Sequence[_Row]) -> None:
    """Apply biases, masks and constraints to `scores` `[rows, head_size]`, in place."""
    constraints = [row.sequence.constraint for row in rows]
    bitsets = [None if constraint is None else constraint.allowed() for constraint in constraints]
    pairs = zip(rows, bitsets, strict=True)
    add_dense(scores, [row.rules.dense(row.sequence.num_generated, bitset) for row, bitset in pairs])
    exclude(scores, bitsets)


def _draw(row: _Row, vocab_size: int, logits: torch.Tensor) -> Draw:
    # One number per token from the stream's own generator, and none where nothing is drawn.
    sampling = row.request.sampling
    if sampling.as_torch and sampling.seed is not None and sampling.temperature > 0:
        return Draw.of(sampling, vocab_size, 0.0, _noise(row.sequence, sampling.seed, logits))
    return Draw.of(sampling, vocab_size, row.sequence.random() if sampling.temperature > 0 else 0.0)


def _noise(sequence: TokenSequence, seed: int, logits: torch.Tensor) -> torch.Tensor:
    """Draw what `torch.multinomial` does for a row as wide as the head: exponential numbers, float32 `[head_size]`."""
    if sequence.generator is None:
        sequence.generator = torch.Generator(logits.device).manual_seed(seed)
    numbers = torch.empty(logits.shape[1], dtype=torch.float32, device=logits.device)
    return numbers.exponential_(generator=sequence.generator)


def _answers(
    scores: torch.Tensor,
    logprobs: torch.Tensor,
    draws: Sequence[Draw],
    wanted: Sequence[Wanted],
    vocab_size: int,
    num_ranked: int,
) -> list[Answer]:
    """Draw and read the rows of `scores` and `logprobs` `[rows, width]`, ranking `num_ranked` of the likeliest ids."""
    most = min(max(want.top_logprobs for want in wanted), vocab_size)
    # The likeliest token is read off the scores: two of them can round to one log-probability.
    ranked = likeliest(scores, max(most, num_ranked))
    tokens, settled = choose(scores, ranked, draws, vocab_size)
    possible = ranked.scores[:, :1] != -math.inf
    answers = read_answers(Results(logprobs, tokens, ranked.ids[:, :most], possible, settled), wanted)
    late = [i for i, answer in enumerate(answers) if answer is None]
    if late:
        # Rare: a nucleus is wider than what was ranked. Only the host knows, and only now.
        rows = to_device(np.array(late), scores.device)
        wider = min(_WIDENING * ranked.ids.shape[1], vocab_size)
        again = _answers(
            scores[rows], logprobs[rows], [draws[i] for i in late], [wanted[i] for i in late], vocab_size, wider
        )
        for i, answer in zip(late, again, strict=True):
            answers[i] = answer
    return [answer for answer in answers if answer]
