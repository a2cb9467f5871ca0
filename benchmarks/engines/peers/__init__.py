"""The engines that are compared, each behind the same small interface, each in a module of its own.

A module is imported only in the process that runs its engine, whose environment may hold nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Sink = Callable[[Sequence[int], bool], None]
"""Takes the ids that have come since the last call, and whether those were the last. On any thread."""


@dataclass(slots=True)
class Call:
    """One generation: `max_tokens` after `prompt`, end tokens or not, with `top_logprobs` alternatives for each.

    `emit` takes what comes, `fail` an error in place of the rest.
    """

    prompt: list[int]
    max_tokens: int
    emit: Sink
    fail: Callable[[str], None]
    top_logprobs: int = 0
    bias: dict[int, float] = field(default_factory=dict)


class Peer(Protocol):
    """An engine with a model loaded."""

    def start(self, calls: Sequence[Call]) -> None:
        """Begin calls that come at one moment; return without waiting for them."""

    def score(self, prompt: list[int], options: list[list[int]]) -> list[list[float]]:
        """Return the log-probability of each option's tokens after `prompt`."""

    def model_process(self) -> int:
        """Return the id of the process that holds the model."""

    def close(self) -> None:
        """Free everything."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What every engine gets: a work directory and the checkpoint in it, a torch dtype by name, a thread count."""

    work_directory: Path
    checkpoint: Path
    dtype: str
    threads: int


@dataclass(frozen=True, slots=True)
class Kind:
    """An engine by name. `lacks` says, for what it cannot do ("masks", "score"), why; `note` is how it is run."""

    title: str
    module: str
    lacks: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def open(self, setting: Setting) -> Peer:
        """Load the model; called in the engine's own process."""
        module: Any = importlib.import_module(f"engines.peers.{self.module}")
        peer: Peer = module.open_peer(setting)
        return peer


OURS = "ours"

KINDS = {
    OURS: Kind("this engine", "ours"),
    "cog": Kind("this engine through Cog", "cog_server", note="the work directory under Cog's own server, over HTTP"),
    "generate": Kind(
        "transformers generate",
        "plain_generate",
        note="`generate` on static batches; masks and alternatives by a logits processor of 10 lines; "
        "options scored in one forward pass over copies of the prompt's cache",
    ),
    "batching": Kind(
        "transformers CB",
        "continuous_batching",
        lacks={
            "masks": "transformers' continuous batching takes no logit bias and gives no alternatives",
            "score": "transformers' continuous batching scores nothing",
        },
        note="pages of 16 tokens, which share prefixes best",
    ),
    "lmql": Kind("LMQL 0.7.3", "lmql_scheduler", note="its own scheduler and model, in process: no socket, no JSON"),
    "vllm": Kind("vLLM (CPU)", "vllm_engine", note="AsyncLLM, prefix caching on; scores by prompt_logprobs"),
}
