"""transformers' own continuous batching, with its public interface."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from engines.peers import Call, Setting

# Its own default takes 60 % of the machine's memory: so many pages hold 32768 tokens, more than any row needs.
_SIZES = {"page_size": 16, "num_blocks": 2048, "max_batch_tokens": 1024}
_NO_END = -1


def open_peer(setting: Setting) -> ContinuousBatching:
    """Load the checkpoint and start the manager."""
    torch.set_num_threads(setting.threads)
    model = AutoModelForCausalLM.from_pretrained(setting.checkpoint, dtype=setting.dtype).eval()
    generation = GenerationConfig(do_sample=False, eos_token_id=_NO_END, pad_token_id=0, max_new_tokens=64)
    manager = model.init_continuous_batching(generation, ContinuousBatchingConfig(**_SIZES))
    manager.start()
    return ContinuousBatching(manager)


class ContinuousBatching:
    """Implements `Peer`."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._calls: dict[str, _Seen] = {}
        self._number = 0
        threading.Thread(target=self._run, name="results", daemon=True).start()

    def start(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._number += 1
            name = str(self._number)
            self._calls[name] = _Seen(call)
            self._manager.add_request(
                call.prompt, name, max_new_tokens=call.max_tokens, streaming=True, eos_token_id=_NO_END
            )

    def score(self, prompt: list[int], options: list[list[int]]) -> list[list[float]]:
        raise NotImplementedError

    def model_process(self) -> int:
        return os.getpid()

    def close(self) -> None:
        self._manager.stop(hard_stop=True, timeout=10)

    def _run(self) -> None:
        for output in self._manager:
            self._calls[output.request_id].take(output)


class _Seen:
    """A call and how much of it has come: every output repeats all tokens so far."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._count = 0

    def take(self, output: Any) -> None:
        if output.error is not None:
            self._call.fail(output.error)
            return
        new = output.generated_tokens[self._count :]
        self._count += len(new)
        self._call.emit(new, output.is_finished())
