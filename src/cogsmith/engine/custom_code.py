"""A model's own classes: imported from the work directory, and made known to transformers' Auto classes.

Nothing on `sys.path` changes: the folder becomes a package under a name of its own, whose modules are found in it and
nowhere else, so that no file of it can stand for another package. `trust_remote_code` is not needed: transformers
prefers classes that were registered to those that a checkpoint names.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import msgspec

from cogsmith.errors import CogsmithError, UserError
from cogsmith.manifest import MODEL_CODE, Code

_PREFIX = "cogsmith_model_code_"

_FAILURES = (Exception, SystemExit)
"""What importing a file may end in; a file that exits would otherwise end the server without a word."""


def register(code: Code, root: Path, checkpoint: Path) -> None:
    """Import the classes of `code` from the work directory `root` and register them, for the weights in `checkpoint`.

    What is registered already under the same `model_type`, transformers' own included, gives way. Raises UserError
    where the files cannot be imported, where a class is not what transformers asks of it, or where the checkpoint's
    config.json is for another model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

    _require_same_type(code, checkpoint)
    package = _package(root / MODEL_CODE)
    config = _class(package, code.config, PreTrainedConfig)
    model = _class(package, code.model, PreTrainedModel)
    if config.model_type != code.model_type:
        raise UserError(
            f"{code.config} has model_type {config.model_type!r}, and code.model_type is {code.model_type!r}",
            fix=f'write model_type = "{code.model_type}" in the class, or change code.model_type',
        )
    if model.config_class is not config:
        named = "no config_class" if model.config_class is None else f"config_class {model.config_class.__name__}"
        raise UserError(
            f"{code.model} has {named}, and code.config is {code.config}",
            fix=f"write config_class = {config.__name__} in the class",
        )
    AutoConfig.register(code.model_type, config, exist_ok=True)
    AutoModelForCausalLM.register(config, model, exist_ok=True)


@contextmanager
def explained(code: Code | None) -> Iterator[None]:
    """Say of what goes wrong within that it was in the classes of `code`, if there are some. Raises UserError."""
    try:
        yield
    except (CogsmithError, OSError, MemoryError):
        # Not the class's fault.
        raise
    except Exception as error:
        if code is None:
            raise
        raise UserError(
            f"{code.model} of {MODEL_CODE}/ cannot be run: {_told(error)}",
            fix="correct the class; it must be one that plain transformers loads and runs, with get_input_embeddings, "
            "get_output_embeddings and a result that has logits",
        ) from error


def _require_same_type(code: Code, checkpoint: Path) -> None:
    try:
        stated = msgspec.json.decode((checkpoint / "config.json").read_bytes(), type=dict[str, Any]).get("model_type")
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(
            f"{checkpoint / 'config.json'} cannot be read: {error}", fix="build this folder again"
        ) from None
    if stated != code.model_type:
        raise UserError(
            f"config.json of the weights has model_type {stated!r}, and code.model_type is {code.model_type!r}",
            fix="write the model_type of config.json in code.model_type and in the configuration class",
        )


def _package(folder: Path) -> str:
    """Make `folder` a package that can be imported; return its name, which says what is in it and where."""
    files = sorted(folder.rglob("*.py"))
    if not files:
        raise UserError(f"{folder} holds no Python files", fix="build this folder again")
    total = hashlib.sha256(str(folder.resolve()).encode())
    for file in files:
        total.update(hashlib.sha256(file.read_bytes()).digest())
    name = _PREFIX + total.hexdigest()[:16]
    if name not in sys.modules:
        _add_package(name, folder)
    return name


def _add_package(name: str, folder: Path) -> None:
    init = folder / "__init__.py"
    spec = spec_from_file_location(name, init, submodule_search_locations=[str(folder)]) if init.is_file() else None
    if spec is None:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    # A finder keeps what it saw in a folder, which may have been written since.
    importlib.invalidate_caches()
    module = sys.modules[name] = module_from_spec(spec)
    if not init.is_file() or spec.loader is None:
        return
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, _FAILURES):
            raise _unimportable(init.name, error) from error
        raise


def _class(package: str, reference: str, base: type) -> Any:
    """Return the class MODULE.CLASS of the package. Raises UserError where there is none that derives from `base`."""
    module, _, name = reference.rpartition(".")
    try:
        found = getattr(importlib.import_module(f"{package}.{module}" if module else package), name, None)
    except _FAILURES as error:
        raise _unimportable(f"{module.replace('.', '/')}.py", error) from error
    if not isinstance(found, type):
        raise UserError(f"{reference} is not a class", fix=f"define the class {name} in {module or '__init__'}.py")
    if not issubclass(found, base):
        raise UserError(
            f"{reference} is not a {base.__name__} of transformers", fix=f"derive it: class {name}({base.__name__})"
        )
    return found


def _unimportable(file: str, error: BaseException) -> UserError:
    fix = "correct the file, and build this folder again"
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.partition(".")[0]
        if not missing.startswith(_PREFIX):
            fix = f'if {missing} is a package, add requirements = ["{missing}==VERSION"] and build this folder again'
    return UserError(f"the model's own {file} cannot be imported: {_told(error)}", fix=fix)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
