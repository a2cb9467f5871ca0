"""Our sampler inside vLLM: a logits processor that leaves vLLM nothing to choose.

It runs in each process that samples, on the model's logits as they are. Written for the interface of vLLM's V1 model
runner (https://docs.vllm.ai/en/latest/features/custom_logitsprocs/).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace

import msgspec
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

from cogsmith.engine.answer import Answer, Wanted
from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import GenerateRequest, ScoreRequest
from cogsmith.engine.rules import RuleBook
from cogsmith.engine.sampler import sample, score
from cogsmith.engine.sequence import Sequence
from cogsmith.engine.vllm import answer_row, wire

_log = logging.getLogger("cogsmith.engine")


class Processor(LogitsProcessor):  # type: ignore[misc]
    """Draws each row's token and writes the answer into the row."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._info = msgspec.convert(vllm_config.additional_config[wire.KEY], EngineInfo)
        self._rules = RuleBook(self._info)
        self._rows: dict[int, _Row] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Accept what `params.sampling_params` makes; nothing else reaches this engine."""

    def is_argmax_invariant(self) -> bool:
        """No: the largest value is to be the token that was drawn."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the rows of the batch as requests come, go and move."""
        process_dict_updates(self._rows, batch_update, self._new_row)

    @torch.inference_mode()
    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Answer each row of `logits`, float32 `[rows, head_size]`, that has a request; in place."""
        rows = list(self._rows)
        if not rows:
            return logits
        try:
            answers = self._answers(logits, rows)
        except Exception:
            # An exception here ends vLLM, and with it every stream to come.
            _log.exception("sampling failed")
            answers = [answer_row.FAILED] * len(rows)
        answer_row.write(logits, rows, answers)
        return logits

    def _answers(self, logits: torch.Tensor, rows: list[int]) -> list[Answer]:
        drawn = [index for index in rows if self._rows[index].wanted is None]
        scored = [index for index in rows if self._rows[index].wanted is not None]
        answers: dict[int, Answer] = {}
        if drawn:
            sequences = [self._rows[index].caught_up() for index in drawn]
            answers.update(zip(drawn, sample(logits[drawn], sequences, self._info.vocab_size), strict=True))
        if scored:
            targets = [self._rows[index].target() for index in scored]
            wanted = [wanted for index in scored if (wanted := self._rows[index].wanted)]
            answers.update(zip(scored, score(logits[scored], targets, wanted, self._info.vocab_size), strict=True))
        return [answers[index] for index in rows]

    def _new_row(self, params: SamplingParams, prompt: list[int] | None, output: list[int]) -> _Row | None:
        sent = (params.extra_args or {}).get(wire.KEY)
        if sent is None:
            return None
        request, progress = wire.decode(sent)
        text = tuple(prompt or ())
        begun = len(text) - progress.num_generated
        request = replace(request, prompt=text[:begun])
        sequence = Sequence.of(request, _no_sink)
        for token in text[begun:]:
            sequence.append(token)
        if isinstance(request, GenerateRequest):
            sequence.rules = self._rules.of(request)
            sequence.random = _Draws(sequence, request.sampling.seed, progress.num_generated - progress.num_drawn)
        return _Row(sequence, output, progress.num_generated)


class _Row:
    """A request in the batch; `output` is vLLM's own list of its tokens so far, which grows.

    The first `num_before` tokens of the continuation are no output: they came with the prompt. `wanted` is what each
    token of a SCORE is told with, None for a GENERATE.
    """

    def __init__(self, sequence: Sequence, output: list[int], num_before: int) -> None:
        self.sequence = sequence
        self._output = output
        self._num_before = num_before
        request = sequence.request
        self.wanted = Wanted.with_score(request) if isinstance(request, ScoreRequest) else None

    def caught_up(self) -> Sequence:
        """Return the sequence with all tokens that vLLM has accepted: it drops what is drawn after half a prompt."""
        for token in self._output[self.sequence.num_generated - self._num_before :]:
            self.sequence.append(token)
        return self.sequence

    def target(self) -> int:
        """Return the token of a SCORE that comes next; one that has ended may be run once more and gets its last."""
        place = len(self.sequence.request.prompt) + len(self._output)
        return self.sequence.tokens[min(place, len(self.sequence.tokens) - 1)]


class _Draws:
    """The stream's uniform for its next token: the same one however often that is asked for, or begun anew.

    Of the tokens so far, `num_forced` took none.
    """

    def __init__(self, sequence: Sequence, seed: int | None, num_forced: int) -> None:
        self._sequence = sequence
        self._num_forced = num_forced
        self._next: Callable[[], float] = random.Random(seed).random
        self._drawn: list[float] = []

    def __call__(self) -> float:
        place = self._sequence.num_generated - self._num_forced
        while len(self._drawn) <= place:
            self._drawn.append(self._next())
        return self._drawn[place]


def _no_sink(events: object) -> None:
    """Events are made in the process that asked."""
