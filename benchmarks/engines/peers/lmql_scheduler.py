"""LMQL 0.7.3's own scheduler and model, unmodified and in process, with today's newest transformers that it bears.

In process is its fastest way: its server adds a socket, JSON, and a poll every 10 ms.
"""

from __future__ import annotations

import json
import os
import queue
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lmql.models.lmtp.lmtp_scheduler import GenerateCall, Scheduler  # type: ignore[import-not-found]

from engines.peers import Call, Setting

_EXCLUDED = -100.0
_SCORED_AT_ONCE = 4
"""Twenty at once, as its client would ask, took 14 GB with SmolLM2's vocabulary."""


def open_peer(setting: Setting) -> LmqlScheduler:
    """Start the scheduler, which loads the model on its own thread."""
    torch.set_num_threads(setting.threads)
    folder = tempfile.TemporaryDirectory()
    eos = as_transformers_4(setting.checkpoint, Path(folder.name))
    model_args = {"torch_dtype": getattr(torch, setting.dtype), "silent": True}
    return LmqlScheduler(Scheduler.instance(folder.name, model_args, user="benchmark"), eos, folder)


def as_transformers_4(checkpoint: Path, folder: Path) -> int | None:
    """Link the weights into `folder`, beside a config that transformers 4 understands; return the end token."""
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters", None) or {}
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
    if rope.get("rope_type", "default") != "default":
        config["rope_scaling"] = rope
    for file in checkpoint.iterdir():
        if file.name != "config.json":
            (folder / file.name).symlink_to(file.resolve())
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    eos = config.get("eos_token_id")
    return eos if isinstance(eos, int) else None


class LmqlScheduler:
    """Implements `Peer`."""

    def __init__(self, scheduler: Any, eos: int | None, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._scheduler = scheduler
        self._folder = folder
        # It knows no other way to go on after the end token, and spreads a bias over the vocabulary anyhow.
        self._no_end = {} if eos is None else {eos: _EXCLUDED}

    def start(self, calls: Sequence[Call]) -> None:
        for call in calls:
            settings = {"max_tokens": call.max_tokens, "top_logprobs": max(1, call.top_logprobs)}
            self._scheduler.put(GenerateCall(call.prompt, {**call.bias, **self._no_end}, settings, 1, _Results(call)))

    def score(self, prompt: list[int], options: list[list[int]]) -> list[list[float]]:
        groups = [options[start : start + _SCORED_AT_ONCE] for start in range(0, len(options), _SCORED_AT_ONCE)]
        return [logprobs for group in groups for logprobs in self._score(prompt, group)]

    def _score(self, prompt: list[int], options: list[list[int]]) -> list[list[float]]:
        queues: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in options]
        for option, results in zip(options, queues, strict=True):
            settings = {"score": True, "scoring_offset": len(prompt)}
            self._scheduler.put(GenerateCall(prompt + option, {}, settings, 1, results))
        return [[_logprob(results.get()) for _ in option] for option, results in zip(options, queues, strict=True)]

    def model_process(self) -> int:
        return os.getpid()

    def close(self) -> None:
        self._scheduler.kill_event.set()
        self._folder.cleanup()


class _Results:
    """Stands where LMQL has a queue of results.

    Under today's transformers its streamer gives the last token twice: what is over the count is left out.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._count = 0

    def put(self, item: tuple[str, dict[str, Any]]) -> None:
        _, token = item
        if "error" in token:
            self._call.fail(token["error"])
        elif self._count < self._call.max_tokens:
            self._count += 1
            self._call.emit([token["token"]], self._count == self._call.max_tokens)


def _logprob(item: tuple[str, dict[str, Any]]) -> float:
    _, token = item
    if "error" in token:
        raise RuntimeError(token["error"])
    return float(token["logprob"])
