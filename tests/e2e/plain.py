"""The truth about a checkpoint: plain transformers in float32, token by token, constraints applied by hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

Allowed = Callable[[str], Collection[int] | None]
"""From the text generated so far to the ids that may come next; None is all."""


class PlainModel:
    """A checkpoint folder, loaded without anything of this project."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.bos = self.tokenizer.bos_token_id
        self.eos = self.tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    @torch.no_grad()
    def logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """Row i is the distribution of the token after `ids[: i + 1]`."""
        return torch.log_softmax(self.model(torch.tensor([list(ids)])).logits[0], -1)

    def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Return the log-probability of each token of `continuation` after all before it."""
        rows = self.logprobs([*prompt, *continuation])[len(prompt) - 1 : -1]
        return [row[token].item() for row, token in zip(rows, continuation, strict=True)]

    @torch.no_grad()
    def greedy(
        self,
        prompt: Sequence[int],
        count: int,
        *,
        allowed: Allowed = lambda text: None,
        stop: str | None = None,
        min_tokens: int = 0,
    ) -> list[int]:
        """Continue `prompt` by the likeliest allowed tokens.

        Ends after `count` tokens, at the end token (left out; never before `min_tokens`), or with the token that
        brings `stop` into the text.
        """
        made: list[int] = []
        state, fed = None, list(prompt)
        while len(made) < count and (stop is None or stop not in self.decode(made)):
            result = self.model(torch.tensor([fed]), past_key_values=state, use_cache=True)
            logits, state = result.logits[0, -1], result.past_key_values
            if len(made) < min_tokens:
                logits[self.eos] = -torch.inf
            ids = allowed(self.decode(made))
            token = logits.argmax().item() if ids is None else max(ids, key=lambda id_: logits[id_].item())
            if token == self.eos:
                break
            made.append(token)
            fed = [token]
        return made

    def greedy_text(self, prompt: str, count: int, **constraints: object) -> str:
        """Return the text of `greedy` after a prompt that begins with the model's first token."""
        return self.decode(self.greedy([self.bos, *self.encode(prompt)], count, **constraints))

    def beams(self, prompt: Sequence[int], width: int, count: int) -> list[list[int]]:
        """Return the `width` likeliest continuations of `count` tokens that a beam search finds, best first."""
        beams = [(0.0, list[int]())]
        for _ in range(count):
            grown = []
            for total, made in beams:
                best = self.logprobs([*prompt, *made])[-1].topk(width)
                pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
                grown += [(total + value, [*made, token]) for value, token in pairs]
            beams = sorted(grown, reverse=True)[:width]
        return [made for _, made in beams]
