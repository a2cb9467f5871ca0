"""Plain `transformers`: `generate` on static batches. No cache is kept from one call to the next, as there is none."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache, GenerationConfig, LogitsProcessor
from transformers.generation import BaseStreamer

from engines.peers import Call, Setting

_GATHERING = 0.002
"""Seconds in which calls that end together bring their next ones: else a batch would fall apart."""


def open_peer(setting: Setting) -> PlainGenerate:
    """Load the checkpoint."""
    torch.set_num_threads(setting.threads)
    model = AutoModelForCausalLM.from_pretrained(setting.checkpoint, dtype=setting.dtype).eval()
    # Every call makes all its tokens.
    model.config.eos_token_id = None
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
    return PlainGenerate(model)


class PlainGenerate:
    """Implements `Peer`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="generate", daemon=True).start()

    def start(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._calls.put(call)

    @torch.inference_mode()
    def score(self, prompt: list[int], options: list[list[int]]) -> list[list[float]]:
        cache = DynamicCache()
        first = self._model(torch.tensor([prompt]), past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        cache.batch_repeat_interleave(len(options))
        width = max(map(len, options))
        # Padding comes last, where no token of the option sees it.
        padded = torch.tensor([option + [0] * (width - len(option)) for option in options])
        later = self._model(padded, past_key_values=cache, use_cache=True).logits
        rows = torch.cat([first.expand(len(options), -1, -1), later[:, :-1]], 1).float().log_softmax(-1)
        chosen = rows.gather(-1, padded[..., None])[..., 0].tolist()
        return [row[: len(option)] for row, option in zip(chosen, options, strict=True)]

    def model_process(self) -> int:
        return os.getpid()

    def close(self) -> None:
        """Nothing to do: the thread is a daemon."""

    def _run(self) -> None:
        while True:
            calls = [self._calls.get()]
            time.sleep(_GATHERING)
            while not self._calls.empty():
                calls.append(self._calls.get())
            try:
                self._batch(calls)
            except Exception as error:
                for call in calls:
                    call.fail(f"{type(error).__name__}: {error}")

    def _batch(self, calls: list[Call]) -> None:
        width = max(len(call.prompt) for call in calls)
        ids = torch.tensor([[0] * (width - len(call.prompt)) + call.prompt for call in calls])
        mask = torch.tensor([[0] * (width - len(call.prompt)) + [1] * len(call.prompt) for call in calls])
        extra = [_Masked(calls)] if any(call.bias or call.top_logprobs for call in calls) else []
        self._model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max(call.max_tokens for call in calls),
            logits_processor=extra,
            streamer=_Streamer(calls),
        )


class _Masked(LogitsProcessor):  # type: ignore[misc]
    """Adds each row's bias and lists each row's best tokens, as a caller of `generate` would."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls
        self._bias: torch.Tensor | None = None
        self.alternatives: list[tuple[list[list[float]], list[list[int]]]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._bias is None:
            self._bias = torch.zeros(scores.shape)
            for row, call in zip(self._bias, self._calls, strict=True):
                row[list(call.bias)] = torch.tensor(list(call.bias.values()))
        logprobs = torch.log_softmax(scores.float() + self._bias, -1)
        best = logprobs.topk(max(call.top_logprobs for call in self._calls))
        self.alternatives.append((best.values.tolist(), best.indices.tolist()))
        return logprobs


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Hands each step's tokens to their calls; the first `put` is the prompts."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls
        self._steps = -1

    def put(self, value: torch.Tensor) -> None:
        self._steps += 1
        if self._steps == 0:
            return
        for call, token in zip(self._calls, value.tolist(), strict=True):
            if self._steps <= call.max_tokens:
                call.emit([token], self._steps == call.max_tokens)

    def end(self) -> None:
        """Nothing to do: each call's last token is known by its count."""
