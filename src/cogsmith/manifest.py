"""`model.json`: all that varies between two work directories, as data.

The packager writes it, the predictor reads it inside the container. Nothing from a user's config is ever
pasted into code. This module travels into every work directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from cogsmith.errors import UserError
from cogsmith.quant import SHORT_DTYPES, Quant

FILE_NAME = "model.json"
CHECKPOINT = "checkpoints"
"""The folder of the weights, where nothing else is said."""
MODEL_CODE = "model_code"
"""The folder of a model's own Python files, a package: beside the weights, never among them."""
CAUSAL_LM: Final = "causal-lm"
"""The task of a model that continues texts."""
IMAGE_TEXT: Final = "image-text"
"""The task of one that reads images too."""
ENCODER: Final = "encoder"
"""The task of a model that reads a text as a whole, and gives vectors."""
DECODER: Final = "decoder"
"""The task of one that was made to continue texts, and gives vectors."""
VECTORS: Final = (ENCODER, DECODER)
"""The tasks of models that give vectors, and no tokens."""
MODEL_ARGS = "COGSMITH_MODEL_ARGS"
"""The environment variable whose value, a JSON object, is laid over `model_args` for one run of a server."""

AUTOCAST_DTYPE = "autocast_dtype"
"""The argument that is not one of `from_pretrained`: the type to compute in, where that is not the weights' own."""

ImageTransform = Literal["model", "padded_resize", "resized_center_crop"]

MAX_IMAGES = 64
"""Of one prediction."""
MAX_IMAGE_PIXELS = 64 * 2**20
"""Of one image: three quarters of a gigabyte while it is worked on."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one server grants. Counts are per server unless said otherwise."""

    max_batch_size: int = 16
    """Rows that one forward pass carries."""
    max_queue: int = 512
    """Operations that may wait for a row; one more is refused with an error item."""
    kv_cache_bytes: int | None = None
    """Memory for keys and values; None means what the rows may need, within what a GPU or a machine has free."""
    max_context: int | None = None
    """Tokens of prompt plus continuation; None means what the model was trained for."""
    max_tokens: int | None = None
    """Most tokens one GENERATE may ask for; None means the rest of the context."""
    max_operations: int = 64
    """Operations in one batch."""
    max_batch_bytes: int = 16 * 2**20
    """Bytes of one batch's JSON text."""
    timeout_seconds: float = 300.0
    """Longest life of one prediction; its streams then end."""


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Classes of the model's own, which transformers is told of before the weights are loaded."""

    model_type: str
    """What config.json calls the model."""
    config: str
    """The class of its configuration: MODULE.CLASS, where MODULE is a file of `MODEL_CODE` without its ending."""
    model: str
    """The class of the model, in the same way."""


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How texts become prompts where a request does not say.

    `template` names a prompt template; `text` is its Jinja text where it is the packager's own. `stop` are the texts
    at which an answer ends, None for those of the template. With `truncate` a prompt that is too long loses its
    beginning.
    """

    template: str | None = None
    text: str | None = None
    system: str = ""
    stop: tuple[str, ...] | None = None
    truncate: bool = False


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a work directory serves and how."""

    name: str
    source: str
    """The canonical URI of the weights, with the full revision."""
    cogsmith: str
    """Version of the packager."""
    task: str = CAUSAL_LM
    image_transform: ImageTransform = "model"
    """How images become pixels where a request does not say."""
    engine: str = "transformers"
    checkpoint: str = CHECKPOINT
    """Folder of the weights, relative to the work directory."""
    allow_pickle: bool = False
    """Whether the weights may be pickles, which can run code when they are loaded."""
    model_args: dict[str, Any] = msgspec.field(default_factory=dict)
    """Keyword arguments for `from_pretrained`, as the config gave them."""
    vllm: dict[str, Any] = msgspec.field(default_factory=dict)
    """Options of vLLM, where that is the engine."""
    quant: Quant | None = None
    """How the weights are quantised, here or when they are loaded."""
    code: Code | None = None
    """The model's own classes; None, as for most, where transformers has them."""
    limits: Limits = Limits()
    prompt: Prompt = Prompt()
    prepack: bool | None = None
    """Whether a CPU's weights are laid out for oneDNN; None means where that changes no result."""
    concurrency: int = 32
    """Predictions that Cog lets run at once."""

    def to_json(self) -> bytes:
        """Return the file's bytes: indented, keys in field order, newline at the end."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def read(folder: Path) -> Manifest:
    """Read `model.json` in a work directory. Raises UserError where there is none that this version can read."""
    try:
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise UserError(f"{folder / FILE_NAME} is missing", fix="build this folder again") from None
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{folder / FILE_NAME} cannot be read: {error}", fix="build this folder again") from error


def model_args(settings: Manifest, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the arguments for `from_pretrained`: the manifest's, with those of the environment laid over them.

    Raises UserError where the environment's are no JSON object.
    """
    text = environ.get(MODEL_ARGS, "{}")
    try:
        return settings.model_args | understood(msgspec.json.decode(text, type=dict[str, Any]))
    except msgspec.DecodeError as error:
        raise UserError(
            f"{MODEL_ARGS} is {text!r}: {error}", fix='set it to a JSON object, such as {"dtype": "float32"}'
        ) from error


def understood(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments for `from_pretrained` with other programs' words in its own.

    `device` is `device_map`, and a type may be called as MosaicML's scripts do: "fp32", "fp16", "bf16".
    """
    rest = dict(arguments)
    for key in ("dtype", "torch_dtype", AUTOCAST_DTYPE):
        if isinstance(value := rest.get(key), str):
            rest[key] = SHORT_DTYPES.get(value, value)
    if "device" in rest:
        rest["device_map"] = rest.pop("device")
    return rest
