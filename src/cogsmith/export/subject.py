"""What is exported: a checkpoint that transformers itself can build, with weights that are plain numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogsmith import manifest
from cogsmith.engine.description import Description, describe
from cogsmith.engine.loader import read_config, trusts_code
from cogsmith.errors import UserError
from cogsmith.quant import upstream_keys

# Which device, which type and which kernels: the export has its own.
_OURS = frozenset(
    {
        "attn_implementation",
        "autocast_dtype",
        "device_map",
        "dtype",
        "low_cpu_mem_usage",
        "max_memory",
        "offload_folder",
        "offload_state_dict",
        "torch_dtype",
        "trust_remote_code",
        "use_cache",
    }
)
# The original's name first, then those of Hugging Face's configurations; the first that is there counts.
_LENGTHS = ("max_seq_len", "max_position_embeddings", "n_positions", "seq_length", "n_ctx")


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint folder, what `from_pretrained` is told beside, and what is known of it without its weights."""

    checkpoint: Path
    model_args: Mapping[str, Any]
    description: Description
    stated_length: int | None


def read(folder: Path) -> Subject:
    """Look at the work directory or checkpoint `folder`; no weight is read and no code of it is run.

    Raises UserError for what is no checkpoint, for quantised weights and for classes of the model's own.
    """
    checkpoint, arguments = _opened(folder)
    config = _config(checkpoint)
    if config.get("quantization_config"):
        raise _quantised(f"{checkpoint.name}/config.json says that its weights are quantised")
    kept = {key: value for key, value in arguments.items() if key not in _OURS}
    try:
        description = describe(checkpoint, {**kept, "dtype": "float32"})
    except (ValueError, ImportError) as error:
        raise UserError(f"transformers has no model for {folder.name}: {error}", fix=_own_code_fix(config)) from error
    return Subject(checkpoint, kept, description, _stated(checkpoint, kept))


def length(subject: Subject, asked: int | None, *, dynamic: bool) -> int:
    """Return how many tokens a row of the sample has: what is `asked`, else what the model's configuration says.

    Raises UserError where neither says it, and for more than the model takes.
    """
    stated = subject.stated_length
    if asked is None and stated is None:
        raise UserError(
            f"config.json has none of {', '.join(_LENGTHS)}, so the longest text is not known",
            fix="say it: --max-seq-len N",
        )
    if asked and stated and asked > stated:
        raise UserError(f"--max-seq-len {asked} is longer than the model's {stated}", fix=f"give at most {stated}")
    chosen = asked or stated or 0
    if dynamic and chosen < 2:
        raise UserError(f"any length up to {chosen} is one length", fix="leave out --dynamic, or give more tokens")
    return chosen


def require_apart(place: str, folder: Path) -> None:
    """Raise UserError where writing to `place` would replace the model, or be lost with its next build."""
    scheme, _, body = place.partition(":")
    if scheme != "path":
        return
    target, source = Path(body).resolve(), folder.resolve()
    if source.is_relative_to(target):
        raise UserError(f"{body} would replace {folder}", fix="name another folder")
    if target.is_relative_to(source):
        raise UserError(f"{body} is inside {folder}, which is not the place for it", fix="name a folder elsewhere")


def _opened(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint's folder and its arguments. Raises UserError for what a work directory has of its own."""
    if not (folder / manifest.FILE_NAME).is_file():
        return folder, {}
    settings = manifest.read(folder)
    arguments = dict(settings.model_args)
    if settings.code or trusts_code(arguments):
        name = settings.code.model if settings.code else "trust_remote_code"
        raise UserError(
            f"{settings.name} runs code of its own ({name}), and exporting runs no such code",
            fix="export a model whose class transformers has",
        )
    if settings.quant or upstream_keys(arguments):
        raise _quantised(f"{settings.name} is quantised ({settings.quant or 'by its config'})")
    return folder / settings.checkpoint, arguments


def _quantised(what: str) -> UserError:
    return UserError(
        f"{what}, and ONNX takes whole numbers of 32 bits a weight", fix="export the model before quantisation"
    )


def _config(checkpoint: Path) -> dict[str, Any]:
    try:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{checkpoint} is no checkpoint: config.json: {error}", fix="name a work directory or a checkpoint folder"
        ) from error
    return config if isinstance(config, dict) else {}


def _own_code_fix(config: Mapping[str, Any]) -> str:
    if "auto_map" in config:
        return "it needs code of its own, which exporting does not run: export a model whose class transformers has"
    return "export a causal language model whose class transformers has"


def _stated(checkpoint: Path, model_args: Mapping[str, Any]) -> int | None:
    config = read_config(checkpoint, model_args)
    text = config.get_text_config()
    named = (model_args.get(key) or getattr(text, key, None) for key in _LENGTHS)
    return next((int(value) for value in named if isinstance(value, int) and value > 0), None)
