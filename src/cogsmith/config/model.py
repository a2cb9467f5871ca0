"""The types of config.toml after loading: complete, checked, immutable.

Only this form goes on to the rest of the program. `config.schema.json` is generated from the raw types, not from
these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cogsmith.manifest import Limits
from cogsmith.quant import Quant

Precision = Literal["fp32", "fp16", "bf16"]
Format = Literal["auto", "hf", "gguf"]
EngineName = Literal["transformers", "vllm"]

EXAMPLE = "config.toml.example"
"""The commented config to start from."""

WORK = "work"
"""The folder of the work directories, beside config.toml."""


@dataclass(frozen=True, slots=True)
class CogSettings:
    """What goes into cog.yaml. `cuda` is used with `gpu` only; `concurrency` 1 renders the conservative predictor."""

    gpu: bool = True
    cuda: str = "13.0"
    python: str = "3.11"
    system_packages: tuple[str, ...] = ()
    concurrency: int = 32


@dataclass(frozen=True, slots=True)
class Model:
    """One `[models.NAME]` section, complete.

    `source` holds canonical URIs (`hf:ORG/REPO`, `hf:ORG/REPO/FILE.gguf`, `path:/absolute/folder`,
    `pypi:PACKAGE==VERSION`); the upstream keys `huggingface.repo` and `.version` are folded into `source` and
    `revision`, those of quantisation (`config.load_in_4bit`, …) into `quant`. `model_args` is the rest of `config.*`,
    unchanged. `vllm` holds options in vLLM's own words. `line` is where the section begins.
    """

    name: str
    source: str
    revision: str | None = None
    format: Format = "auto"
    output_precision: Precision | None = None
    allow_pickle: bool = False
    model_args: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    cog: CogSettings = field(default_factory=CogSettings)
    quant: Quant | None = None
    engine: EngineName = "transformers"
    vllm: Mapping[str, Any] = field(default_factory=dict)
    prepack: bool | None = None
    requirements: tuple[str, ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True)
class Project:
    """A whole config.toml. `dest_prefix` is None where the user means to stay on this machine."""

    path: Path
    dest_prefix: str | None
    models: Mapping[str, Model]

    @property
    def root(self) -> Path:
        """The folder that relative paths, `work/` and `cogsmith.lock` are relative to."""
        return self.path.parent
