"""The tables within a model's section of config.toml, as they are written: `limits`, `cog`, `quant`, …"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Tag,
)

from cogsmith.config import rules, uri
from cogsmith.config.model import CogSettings, OnnxSettings, WeightsFile
from cogsmith.manifest import Limits
from cogsmith.prompts import templates
from cogsmith.quant import When

_LIMITS = Limits()
_COG = CogSettings()
_ONNX = OnnxSettings("")

TEXT, LIST = "<text>", "<list>"
"""What pydantic calls the two forms of a key that takes a text or a list of them; no key can be called so."""


def is_list(value: object) -> str:
    """Tell which of the two forms `value` is in, or is most like."""
    return LIST if isinstance(value, list) else TEXT


def source(text: str) -> str:
    """Check a URI of weights."""
    uri.parse(text)
    return text


def _output(text: str) -> str:
    uri.parse_output(text)
    return text


SomeText = Annotated[str, AfterValidator(rules.not_blank)]
Source = Annotated[str, AfterValidator(source)]
Texts = Annotated[Annotated[SomeText, Tag(TEXT)] | Annotated[list[SomeText], Tag(LIST)], Discriminator(is_list)]
Sources = Annotated[Annotated[Source, Tag(TEXT)] | Annotated[list[Source], Tag(LIST)], Discriminator(is_list)]


def listed(value: str | list[str] | None) -> tuple[str, ...]:
    """Return the one text or all of them; none where the key is left out."""
    return (value,) if isinstance(value, str) else tuple(value or ())


class Table(BaseModel):
    """A TOML table with a fixed set of keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RawHuggingFace(Table):
    """Weights on the Hugging Face Hub."""

    repo: Annotated[str, AfterValidator(rules.repo_id)] | None = Field(
        default=None,
        description='Repository on the Hugging Face Hub, `ORG/REPO`. The same as `source = "hf:ORG/REPO"`.',
    )
    version: Annotated[str, AfterValidator(rules.revision)] | None = Field(
        default=None, description="Branch, tag or commit of the repository. Left out: its main branch."
    )


class RawLimits(Table):
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


class RawCog(Table):
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


class RawQuant(Table):
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


class RawCode(Table):
    """A model class of your own, which transformers does not have."""

    path: SomeText | None = Field(
        default=None,
        description="Python file or folder, relative to the folder of config.toml, that defines a model class which "
        "transformers does not have. It runs in the container only; the classes are registered with `AutoConfig` and "
        "`AutoModelForCausalLM`. Left out: `code.files` lie where the weights are.",
    )
    files: Texts | None = Field(
        default=None,
        description="Which files of the folder, or of the weights' own source, are taken, as a text or a list. "
        "Left out: all `*.py` below `code.path`.",
    )
    model_type: Annotated[str, AfterValidator(rules.model_type)] | None = Field(
        default=None, description="The `model_type` in config.json that stands for the classes."
    )
    config: Annotated[str, AfterValidator(rules.class_name)] | None = Field(
        default=None, description="The class of the configuration: `MODULE.CLASS`, or `CLASS` with a single file."
    )
    model: Annotated[str, AfterValidator(rules.class_name)] | None = Field(
        default=None, description="The class of the model: `MODULE.CLASS`, or `CLASS` with a single file."
    )


class RawPrompt(Table):
    """How texts become prompts, where a request does not say."""

    template: SomeText | None = Field(
        default=None,
        description="The prompt template of instructions and chats: one of "
        + ", ".join(f"`{name}`" for name in templates.names())
        + "; or a file, relative to the folder of config.toml, that ends in `.jinja` and is written as Hugging Face's "
        "chat templates are. Left out: the chat template that comes with the model.",
    )
    system: str = Field(default="", description="The system prompt, where a request has none.")
    stop: list[SomeText] | None = Field(
        default=None, description="Texts that end an answer. Left out: those of the template."
    )
    truncate: bool | None = Field(
        default=None,
        description="Whether a text that is too long loses its beginning; else it is refused. "
        "Left out: only with `config.max_seq_len`.",
    )


class RawOutput(Table):
    """Where the finished Hugging Face folder is put, besides the work directory."""

    uri: Annotated[str, AfterValidator(_output)] | None = Field(
        default=None,
        description="Folder, or `s3://`, `gs://`, `az://` or `oci://` address, where the finished Hugging Face folder "
        "is put too while building.",
    )
    format: WeightsFile = Field(
        default="safetensors", description="What the weights are saved as there; `bin` is `pytorch_model.bin`."
    )
    force: bool = Field(default=False, description="Whether what lies there already may be replaced.")


class RawOnnx(Table):
    """What `cogsmith export onnx` is told."""

    output_folder: Annotated[str, AfterValidator(_output)] | None = Field(
        default=None,
        description="Where `model.onnx` is put: a folder, or an address as `output.uri` takes it. "
        "Left out: `onnx/NAME`, beside config.toml.",
    )
    dynamic: bool = Field(
        default=_ONNX.dynamic,
        description="Whether the graph takes any number of rows, and lengths up to `max_seq_len`.",
    )
    batch_size: PositiveInt = Field(default=_ONNX.batch_size, description="Rows of the graph.")
    max_seq_len: PositiveInt | None = Field(
        default=_ONNX.max_seq_len, description="Tokens of a row. Left out: the longest text that config.json names."
    )
    opset: int | None = Field(default=_ONNX.opset, ge=18, le=23, description="The version of ONNX's operators.")
    verify: bool = Field(
        default=_ONNX.verify, description="Whether the file, run in onnxruntime, is compared with the model."
    )
    force: bool = Field(default=_ONNX.force, description="Whether what lies there already may be replaced.")


def _as_table(value: object) -> object:
    return {} if isinstance(value, bool) else value


class RawExport(Table):
    """The model in other programs' formats."""

    onnx: Annotated[RawOnnx, BeforeValidator(_as_table, json_schema_input_type=bool | RawOnnx)] = Field(
        default_factory=RawOnnx,
        description="Whether a build writes the model as ONNX too, as `cogsmith export onnx` does; the keys below it "
        "say yes, and are that command's defaults.",
    )
