"""What a GENERATE asks of each of its steps, prepared once, when it comes in.

Made with numpy alone, so that a thread other than the engine's can do it without opening a second pool of torch
threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from cogsmith.engine.banned import excluded_ids
from cogsmith.engine.base import EngineInfo
from cogsmith.engine.dense import DenseRow, DenseRows, spread
from cogsmith.engine.request import GenerateRequest

_MAX_BYTES = 64 * 2**20
"""Of dense rows kept for later requests: about a hundred of the largest vocabularies."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Bias and mask of a request: `early` while fewer than `min_tokens` tokens are there, `later` from then on.

    `prompt_ids` are the prompt's ids, each once, and None where no penalty needs them; `logprob_ids` the request's.
    """

    early: DenseRow | None
    later: DenseRow | None
    min_tokens: int
    prompt_ids: np.ndarray | None
    logprob_ids: np.ndarray

    def dense(self, num_generated: int, constrained: np.ndarray | None = None) -> DenseRow | None:
        """What to add to the scores of the next token.

        `constrained` is the bitset of a constraint. End tokens stay allowed where it leaves nothing else.
        """
        if num_generated >= self.min_tokens or self.early is None:
            return self.later
        return self.early if constrained is None or self.early.leaves_any(constrained) else self.later


class RuleBook:
    """Makes the rules of requests to one engine. Any thread may ask."""

    def __init__(self, info: EngineInfo) -> None:
        self._info = info
        self._rows = DenseRows(_MAX_BYTES)
        self._last_bias: tuple[Mapping[int, float], bytes] = ({}, b"")

    def of(self, request: GenerateRequest) -> Rules:
        """Return the rules of `request`."""
        later = self._dense(request)
        ends = request.ends(self._info.eos_ids)
        early = self._dense(request, ends) if request.min_tokens and ends else later
        repeats = request.sampling.repetition_penalty != 1
        prompt_ids = np.unique(np.array(request.prompt, np.int64)) if repeats else None
        return Rules(early, later, request.min_tokens, prompt_ids, np.array(request.logprob_ids, np.int64))

    def _dense(self, request: GenerateRequest, ends: frozenset[int] = frozenset()) -> DenseRow | None:
        if not (request.bias or request.allow is not None or ends):
            return None
        key = self._bias_key(request.bias), request.allow, ends

        def make() -> np.ndarray:
            values = spread(request.bias, self._info.head_size)
            banned = excluded_ids(request.allow, self._info, ends)
            if banned is not None:
                values[banned] = -np.inf
            return values

        return self._rows.get(key, make)

    def _bias_key(self, bias: Mapping[int, float]) -> bytes:
        """Name a bias by its content: once for requests that come in a row with the same one, as branches do."""
        last, key = self._last_bias
        if bias is not last:
            key = _digest(bias)
            self._last_bias = bias, key
        return key


def _digest(bias: Mapping[int, float]) -> bytes:
    ids = np.fromiter(bias.keys(), np.int64, len(bias))
    values = np.fromiter(bias.values(), np.float64, len(bias))
    return blake2b(ids.tobytes() + values.tobytes()).digest() if bias else b""
