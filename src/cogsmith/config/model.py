"""The types of config.toml after loading: complete, checked, immutable.

Only this form goes on to the rest of the program. `config.schema.json` is generated from the raw types, not from
these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from cogsmith.manifest import CAUSAL_LM, ImageTransform, Limits, Prompt
from cogsmith.quant import Quant

Precision = Literal["fp32", "fp16", "bf16"]
Format = Literal["auto", "hf", "gguf", "composer", "accessory"]
WeightsFile = Literal["safetensors", "bin"]
EngineName = Literal["transformers", "vllm"]
Task = Literal["causal-lm", "encoder", "decoder", "image-text"]

EXAMPLE = "config.toml.example"
"""The commented config to start from."""

MAX_SEQ_LEN = "max_seq_len"
"""The argument that is not always one of `from_pretrained`: see `Model.served_as`."""

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
class CodeSettings:
    """A model class of the user's own, to be registered with transformers' Auto classes before the model is loaded.

    `path` is a Python file, or the folder of `files` (all Python files below it, where none are named). Without it,
    `files` are those of the weights' own source, relative to it, at the same revision. `config` and `model` name the
    classes as in `auto_map`: MODULE.CLASS, where MODULE is a file there without its ending; with a single file, CLASS
    alone will do.
    """

    path: Path | None
    files: tuple[str, ...]
    model_type: str
    config: str
    model: str


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """Where the finished Hugging Face folder is also put: the canonical URI of a folder, or of one in a store."""

    uri: str
    format: WeightsFile = "safetensors"
    force: bool = False


@dataclass(frozen=True, slots=True)
class OnnxSettings:
    """The model as ONNX, put at the canonical URI `output` of a folder: see `export.onnx.Shape` for the rest."""

    output: str
    dynamic: bool = False
    batch_size: int = 8
    max_seq_len: int | None = None
    opset: int | None = None
    verify: bool = True
    force: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """One `[models.NAME]` section, complete.

    `source` is a canonical URI (`hf:ORG/REPO`, `hf:ORG/REPO/FILE.gguf`, `path:/absolute/folder`,
    `pypi:PACKAGE==VERSION`, `s3://BUCKET/PATH`, …) and `revision` its revision; `further_sources` are what comes on
    top of it, in order, each with its own `@REVISION`, as `tokenizer` has. The upstream keys `huggingface.repo` and
    `.version` are folded into `source` and `revision`, those of quantisation (`config.load_in_4bit`, …) into `quant`.
    `model_args` is the rest of `config.*`, with `device` as `device_map`. `vllm` holds options in vLLM's own words.
    `line` is where the section begins.
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
    task: Task = CAUSAL_LM
    image_transform: ImageTransform = "model"
    engine: EngineName = "transformers"
    vllm: Mapping[str, Any] = field(default_factory=dict)
    prepack: bool | None = None
    requirements: tuple[str, ...] = ()
    line: int = 0
    further_sources: tuple[str, ...] = ()
    allow_patterns: tuple[str, ...] = ()
    tokenizer: str | None = None
    llama_type: str | None = None
    llama_config: tuple[Path, ...] = ()
    source_cache: Path | None = None
    code: CodeSettings | None = None
    prompt: Prompt = field(default_factory=Prompt)
    output: OutputSettings | None = None
    onnx: OnnxSettings | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """All URIs of the weights, each with its revision."""
        first = self.source if self.revision is None else f"{self.source}@{self.revision}"
        return first, *self.further_sources

    def served_as(self, format: str, shape: Mapping[str, Any] | None) -> Model:
        """Return the model as it is served once its format and config.json (None: not known yet) are known.

        `config.max_seq_len` is LLaMA2-Accessory's word for the longest text, and becomes `limits.max_context`. Where
        config.json itself has that word, as MPT's does, it is an argument of `from_pretrained` like any other.
        """
        length = self.model_args.get(MAX_SEQ_LEN)
        own_word = format != "accessory" if shape is None else MAX_SEQ_LEN in shape
        if length is None or own_word:
            return self
        arguments = {key: value for key, value in self.model_args.items() if key != MAX_SEQ_LEN}
        context = min(length, self.limits.max_context or length)
        return replace(self, model_args=arguments, limits=msgspec.structs.replace(self.limits, max_context=context))


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
