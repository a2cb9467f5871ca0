"""Proof that a checkpoint folder's weights and its config.json belong together, without loading them.

transformers loads tensors that hold no numbers, of the names, types and shapes that the files' headers give, into a
model on torch's meta device: renaming, fusing and tying go the way they go when the model is served, and nothing is
read. What it reports as missing, unexpected or of another shape is a fault.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from cogsmith.errors import ConversionError, MissingExtra, SourceError
from cogsmith.heads import other_task
from cogsmith.manifest import CAUSAL_LM
from cogsmith.sources.base import Reporter
from cogsmith.sources.hashing import CHUNK_BYTES
from cogsmith.sources.safetensors_file import Tensor, read_header, read_index
from cogsmith.sources.selection import CONFIG, SAFETENSORS
from cogsmith.sources.silent import Silent, quiet_libraries

_SHOWN = 5
_FIX = "check that the checkpoint is whole, and that its config is the one that it was trained with"

# Constants that older releases of transformers stored. For a model's own list of them, transformers reports none.
_OLD_BUFFER = re.compile(r"\.(masked_bias|rotary_emb\.inv_freq)$")

Stored = Mapping[str, tuple[Path, Tensor]]
"""The tensors of a folder by name: the file that each is in, and its entry there."""


def verify_folder(
    folder: Path, *, reporter: Reporter | None = None, own_code: bool = False, task: str = CAUSAL_LM
) -> None:
    """Check that the model which config.json names uses every tensor of `folder`, lacks none, and fits all shapes.

    For a `task` other than "causal-lm" that model has no head: one that is stored is no fault, nor a pooler's absence.
    With `own_code`, the model has classes of its own: it is passed over with a note, as are weights that are pickles.
    Raises ConversionError naming the tensors, SourceError for a file that is damaged or not there.
    """
    reporter = reporter or Silent()
    stored = _stored(folder)
    if not stored:
        reporter.note("the weights are no safetensors, and are not checked against config.json")
        return
    with quiet_libraries():
        config = _config(folder, own_code)
        if config is None:
            reporter.note("a model of its own code, whose weights are not checked before it is loaded")
        elif getattr(config, "quantization_config", None):
            _verify_quantised(folder)
        else:
            _verify(config, stored, has_head=task == CAUSAL_LM)


def _stored(folder: Path) -> Stored:
    """Return what the weights' files hold, as their headers say. Raises SourceError; none where they are pickles."""
    single, index = (folder / name for name in SAFETENSORS)
    if single.is_file():
        files = [single]
    elif index.is_file():
        files = [folder / name for name in sorted(set(read_index(index).values()))]
    else:
        return {}
    return {tensor.name: (file, tensor) for file in files for tensor in read_header(file)}


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise SourceError(f"{file} cannot be read: {error}", fix="save the checkpoint again") from error


def _config(folder: Path, own_code: bool) -> Any | None:
    """Return transformers' config object; None for a model that only its own code knows."""
    from transformers import CONFIG_MAPPING, AutoConfig

    stated = _json(folder / CONFIG)
    model_type = stated.get("model_type")
    if own_code:
        # Also where transformers has a class of that name: the model's own is taken in its place.
        return None
    if model_type not in CONFIG_MAPPING:
        raise ConversionError(
            f"config.json has model_type {model_type!r}, which transformers does not have",
            fix="use a model that transformers has, or give its code: code.path, code.model_type, …",
        )
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConversionError(f"config.json of model_type {model_type!r} cannot be read: {error}", fix=_FIX) from error


def _model_class(config: Any, *, has_head: bool) -> Any:
    """Return the class that serves `config`: a causal language model's, else the one that config.json names, as it
    is for a classifier and other heads that continue no text.

    Where `has_head` is false, the class that transformers has for the model without a head.
    """
    import torch
    import transformers

    named = [getattr(transformers, name, None) for name in config.architectures or ()] if has_head else []
    auto_class = transformers.AutoModelForCausalLM if has_head else transformers.AutoModel
    if named and named[0] and other_task({"architectures": config.architectures}):
        return named[0]
    try:
        with torch.device("meta"):
            return type(auto_class.from_config(config, trust_remote_code=False))
    except ValueError as error:
        # Raised for a kind of model without a causal one, and for a config whose numbers contradict each other.
        if type(config) not in auto_class._model_mapping and named and named[0]:
            return named[0]
        raise ConversionError(f"no model can be made from config.json: {error}", fix=_FIX) from error
    except (TypeError, AttributeError, RuntimeError, KeyError, ZeroDivisionError) as error:
        raise ConversionError(f"no model can be made from config.json: {error}", fix=_FIX) from error


def _verify(config: Any, stored: Stored, *, has_head: bool) -> None:
    import torch

    model_class = _model_class(config, has_head=has_head)
    # Types do not matter here: what a weight is converted to when it is loaded is no fault.
    empty = {name: torch.empty(tensor.shape, device="meta") for name, (_, tensor) in stored.items()}
    try:
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=empty,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except RuntimeError as error:
        # Tensors that become one when they are loaded, as a layer's experts do, do not fit each other.
        raise _refusal(model_class, _faults_as_saved(model_class, config, stored) or [str(error)], config) from error
    faults = _faults(report if has_head else _without_head(report))
    if not has_head:
        if faults:
            raise _refusal(model_class, faults)
        return
    if faults and getattr(model, "_weight_conversions", None):
        # What was reported are the names after renaming and fusing, which nobody finds in the files.
        faults = _faults_as_saved(model_class, config, stored) or faults
    if faults:
        raise _refusal(model_class, faults, config)
    _verify_ties(model, stored)


def _without_head(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the report without what only a head or a pooler, neither of which is used, has or lacks."""
    missing = [name for name in report["missing_keys"] if not name.startswith("pooler.")]
    return {**report, "missing_keys": missing, "unexpected_keys": []}


def _faults(report: Mapping[str, Any]) -> list[str]:
    return [
        *(f"{name} is missing" for name in sorted(report["missing_keys"])),
        *(f"{name} has no place in it" for name in sorted(report["unexpected_keys"]) if not _OLD_BUFFER.search(name)),
        *(_unfit(name, have, want) for name, have, want in sorted(report["mismatched_keys"])),
        *map(str, report["error_msgs"]),
    ]


def _faults_as_saved(model_class: Any, config: Any, stored: Stored) -> list[str]:
    """Return the faults in the names that the model is saved under, where those are the ones that are stored."""
    import torch
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        model = model_class(config)
    saved = revert_weight_conversion(model, model.state_dict())
    tied = {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
    faults = [f"{name} is missing" for name in sorted(saved.keys() - stored.keys() - tied)]
    extra = sorted(name for name in stored.keys() - saved.keys() if not _OLD_BUFFER.search(name))
    faults += [f"{name} has no place in it" for name in extra]
    for name in sorted(saved.keys() & stored.keys()):
        have, want = stored[name][1].shape, tuple(saved[name].shape)
        faults += [_unfit(name, have, want)] if have != want else []
    # Where most is at fault, these are not the names.
    return faults if len(faults) <= len(stored) / 2 else []


def _unfit(name: str, have: Iterable[int], want: Iterable[int]) -> str:
    return f"{name} has the shape {list(have)} in place of {list(want)}"


def _verify_ties(model: Any, stored: Stored) -> None:
    """Refuse weights that are to be one and are stored as two different ones: which counts would be chance."""
    pairs = [(one, other) for one, other in model.all_tied_weights_keys.items() if one in stored and other in stored]
    faults = [f"{one} is not {other}" for one, other in pairs if _digest(*stored[one]) != _digest(*stored[other])]
    if faults:
        raise ConversionError(
            f"config.json says that weights are shared, and they differ: {_some(faults)}",
            fix="say tie_word_embeddings = false in config.json, if they were trained apart",
        )


def _digest(file: Path, tensor: Tensor) -> tuple[str, str]:
    """Return a tensor's type and a hash of its bytes."""
    running = hashlib.sha256()
    with file.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
        stream.seek(8 + header + tensor.start)
        left = tensor.end - tensor.start
        while left and (chunk := stream.read(min(left, CHUNK_BYTES))):
            running.update(chunk)
            left -= len(chunk)
    return tensor.dtype, running.hexdigest()


def _verify_quantised(folder: Path) -> None:
    """Check weights in fewer bits by loading them: how they are packed is known to their quantiser only."""
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, device_map={"": "cpu"}, output_loading_info=True, local_files_only=True, trust_remote_code=False
        )
    except ImportError as error:
        raise MissingExtra("engine,quant", "Checking quantised weights") from error
    except (RuntimeError, ValueError) as error:
        raise ConversionError(f"the quantised weights cannot be loaded: {error}", fix=_FIX) from error
    if faults := _faults(report):
        raise _refusal(type(model), faults)


def _refusal(model_class: Any, faults: list[str], config: Any = None) -> ConversionError:
    """Say what is at fault and, where `config` names another class than the one that continues text, that too."""
    name = model_class.__name__
    named = (getattr(config, "architectures", None) or [name])[0]
    if named == name:
        return ConversionError(f"the weights are not those of {name}: {_some(faults)}", fix=_FIX)
    return ConversionError(
        f"config.json says {named}, and the weights are not those of {name}, which continues text: {_some(faults)}",
        fix=f'if it is to give vectors, and has no head for more, set task = "encoder" or "decoder"; else {_FIX}',
    )


def _some(faults: list[str]) -> str:
    more = len(faults) - _SHOWN
    return "; ".join(faults[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
