"""The truth about a checkpoint: plain transformers in float32, and what LMTP makes of its logits, in numpy float64."""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ..e2e.plain import PlainModel
from .server import Answers, Operation

TEXT = (
    "The old lighthouse at the end of the pier had been dark for twenty years when Anna found the key. "
    "It hung behind the clock in the kitchen, on a nail that nobody had ever asked about, and it was green with age. "
    "In the morning she walked down to the harbour, past the boats and the empty market, and tried it in the door. "
    "What did she see there? First 3 chairs, then a table with 12 glasses, and on the wall a map of the coast: "
    "each bay was marked with a number, each island with a name that she did not know. "
)


class Truth(PlainModel):
    """A checkpoint folder under plain transformers. `tolerance` is how far a log-probability may be from it."""

    def __init__(self, folder: Path, tolerance: float = 1e-4) -> None:
        super().__init__(folder)
        self.tolerance = tolerance
        self.head_size = self.model.get_output_embeddings().weight.shape[0]
        self.vocab_size = min(self.head_size, 1 + max(self.tokenizer.get_vocab().values()))
        self.max_context = self.model.config.get_text_config().max_position_embeddings
        self._logits = functools.lru_cache(64)(self._run)

    @functools.cached_property
    def eos_ids(self) -> set[int]:
        """All that end a text: each of the three places may know some."""
        places = (self.model.generation_config, self.model.config.get_text_config(), self.tokenizer)
        found = [getattr(place, "eos_token_id", None) for place in places]
        return {id_ for ids in found for id_ in (ids if isinstance(ids, list) else [ids]) if id_ is not None}

    @property
    def endless(self) -> dict[str, float]:
        """A bias under which no end token comes."""
        return {str(id_): -100 for id_ in self.eos_ids}

    @functools.cached_property
    def letters(self) -> list[int]:
        """Ids that are one letter each, by its place in the alphabet."""
        ids = [self.encode(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
        assert all(len(one) == 1 and self.decode(one) == chr(97 + i) for i, one in enumerate(ids))
        return [one[0] for one in ids]

    def prompt(self, length: int, start: int = 0) -> list[int]:
        """`length` ids: the beginning of a text, where there is one, and what people write."""
        begin = [] if self.bos is None else [self.bos]
        ids = self._text_ids
        while len(ids) < start + length:
            ids = ids + ids
        return [*begin, *ids[start : start + length - len(begin)]]

    @functools.cached_property
    def _text_ids(self) -> list[int]:
        return self.encode(TEXT)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Row i is of the token after `ids[: i + 1]`: float64 `[len(ids), head_size]`."""
        return self._logits(tuple(ids))

    @torch.no_grad()
    def _run(self, ids: tuple[int, ...]) -> np.ndarray:
        return self.model(torch.tensor([ids]), use_cache=False).logits[0].double().numpy()

    def distributions(self, payload: dict[str, Any], tokens: Sequence[int]) -> np.ndarray:
        """The log-probabilities that a GENERATE is told before each of `tokens`: float64 `[len(tokens), head_size]`."""
        prompt = payload["prompt"]
        rows = self.logits([*prompt, *tokens])[len(prompt) - 1 : -1].copy()
        for step, row in enumerate(rows):
            self._adjust(row, payload, tokens[:step])
        return log_softmax(rows)

    def _adjust(self, row: np.ndarray, payload: dict[str, Any], made: Sequence[int]) -> None:
        penalty = payload.get("repetition_penalty", 1.0)
        for id_ in {*payload["prompt"], *made}:
            row[id_] = row[id_] * penalty if row[id_] < 0 else row[id_] / penalty
        for id_ in set(made):
            row[id_] -= payload.get("presence_penalty", 0.0)
            row[id_] -= payload.get("frequency_penalty", 0.0) * list(made).count(id_)
        for key, value in payload.get("logit_bias", {}).items():
            if int(key) < self.head_size:
                row[int(key)] += value
        row[self._banned(payload, len(made))] = -np.inf

    def _banned(self, payload: dict[str, Any], num_made: int) -> list[int]:
        banned: set[int] = set()
        if payload.get("allow") is not None:
            banned = set(range(self.head_size)) - (mask_ids(payload["allow"]) & set(range(self.vocab_size)))
        with_ends = banned | self.eos_ids if num_made < payload.get("min_tokens", 0) else banned
        return sorted(with_ends if len(with_ends) < self.head_size else banned)

    def check(self, operation: Operation, answers: Answers, index: int | None = None) -> None:
        """Check every number of a generated or scored stream, or of a branch, and how it ends."""
        verb, payload = operation
        items = answers.of(payload["stream_id"], index)
        assert items
        assert all("error" not in item for item in items), items[-1]
        if verb == "SCORE":
            self._check_scores(payload, items, index)
        else:
            self._check_generated(payload, items)

    def _check_generated(self, payload: dict[str, Any], items: list[dict[str, Any]]) -> None:
        tokens = [item["token"] for item in items]
        rows = self.distributions(payload, tokens)
        for row, item in zip(rows, items, strict=True):
            self._check_choice(payload, row[: self.vocab_size], item["token"])
            self._check_numbers(row, item, payload.get("top_logprobs", 1), payload.get("logprob_ids", ()))
        reasons = [self._reason(payload, tokens[: i + 1]) for i in range(len(tokens))]
        assert [item["finish_reason"] for item in items] == reasons

    def _check_scores(self, payload: dict[str, Any], items: list[dict[str, Any]], index: int | None) -> None:
        scored = payload["scored"] if index is None else payload["options"][index]
        prompt = [id_ for id_ in payload["prompt"] if id_ is not None]
        assert [item["token"] for item in items] == scored
        assert [item["finish_reason"] for item in items] == [None] * (len(scored) - 1) + ["stop"]
        rows = log_softmax(self.logits([*prompt, *scored]))[: -1 if prompt else None]
        if not prompt:
            assert items[0]["logprob"] == 0.0
            rows, items = rows[:-1], items[1:]
        for row, item in zip(rows[len(rows) - len(items) :], items, strict=True):
            self._check_numbers(row, item, payload.get("top_logprobs", 0), payload.get("logprob_ids", ()))

    def _check_choice(self, payload: dict[str, Any], row: np.ndarray, token: int) -> None:
        """The token is the likeliest, or one that the request's truncations leave."""
        assert 0 <= token < self.vocab_size
        assert row[token] > -np.inf
        temperature = payload.get("temperature", 0.0)
        if temperature == 0:
            assert row[token] >= row.max() - self.tolerance
            return
        likelier = np.sort(row[row > row[token] + self.tolerance])[::-1]
        top_k = payload.get("top_k", 0)
        assert top_k <= 0 or len(likelier) < top_k
        if payload.get("top_p", 1.0) < 1:
            kept = np.sort(row)[::-1][: top_k if top_k > 0 else None]
            mass = np.exp(log_softmax(kept / temperature))[: len(likelier)].sum()
            assert mass < payload["top_p"] + 0.01

    def _check_numbers(self, row: np.ndarray, item: dict[str, Any], count: int, named: Sequence[int]) -> None:
        token = item["token"]
        assert item["logprob"] == self.near(row[token])
        if "top_logprobs" in item:
            self._check_listed(row, {int(key): value for key, value in item["top_logprobs"].items()}, token, count)
        else:
            assert count == 0
        told = {int(key): value for key, value in item.get("logprobs", {}).items()}
        assert told == self.near({id_: row[id_] for id_ in named if row[id_] > -np.inf})

    def _check_listed(self, row: np.ndarray, listed: dict[int, float], token: int, count: int) -> None:
        possible = row[: self.vocab_size][row[: self.vocab_size] > -np.inf]
        count = min(count, len(possible))
        best = np.sort(possible)[::-1][:count]
        assert listed == self.near({id_: row[id_] for id_ in listed})
        assert max(listed) < self.vocab_size
        assert sorted(listed.values(), reverse=True)[:count] == self.near(best.tolist())
        assert token in listed
        assert len(listed) in (max(count, 1), count + 1)
        if count and row[token] > best[-1] + self.tolerance:
            assert len(listed) == count

    def _reason(self, payload: dict[str, Any], tokens: Sequence[int]) -> str | None:
        if tokens[-1] in self.eos_ids:
            return "stop"
        total = len(payload["prompt"]) + len(tokens)
        return "length" if len(tokens) == payload.get("max_tokens", 32) or total == self.max_context else None

    def near(self, expected: Any) -> Any:
        """To be compared with: a large number is as exact as float32 makes it."""
        return pytest.approx(expected, abs=self.tolerance, rel=1e-6)


def log_softmax(rows: np.ndarray) -> np.ndarray:
    shifted = rows - rows.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def ranges(ids: Sequence[int]) -> dict[str, Any]:
    """A mask of `ids`, one range each."""
    return {"ranges": [[id_, id_ + 1] for id_ in sorted(set(ids))]}


def bits(ids: Sequence[int]) -> dict[str, Any]:
    """A mask of `ids` as a bitset."""
    number = sum(1 << id_ for id_ in set(ids))
    return {"bits": base64.b64encode(number.to_bytes(max(ids) // 8 + 1, "little")).decode()}


def mask_ids(mask: dict[str, Any]) -> set[int]:
    """The ids of a mask in either form."""
    if "ranges" in mask:
        return {id_ for begin, end in mask["ranges"] for id_ in range(begin, end)}
    number = int.from_bytes(base64.b64decode(mask["bits"]), "little")
    return {id_ for id_ in range(number.bit_length()) if number >> id_ & 1}


def within(count: int, draws: int, probability: float) -> bool:
    """Whether so many of `draws` can be chance: five standard deviations of a binomial count."""
    return abs(count - draws * probability) <= 5 * math.sqrt(draws * probability * (1 - probability)) + 1e-9
