"""`model.txt` in a work directory: the tree of modules, as `print(model)` shows it once the model is loaded."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from cogsmith import manifest
from cogsmith.cache import write_atomically
from cogsmith.cli.console import err
from cogsmith.errors import UserError
from cogsmith.workdir.places import MODULE_TREE

_PACKAGES = ("torch", "transformers")


def write(folder: Path) -> None:
    """Write `model.txt` into the work directory `folder`, from the model without its weights.

    Nothing is written for a model with code of its own, which is not run, and where the engine's packages are not
    installed; what is in the way otherwise is said on stderr. No build depends on it.
    """
    settings = manifest.read(folder)
    if settings.code or not all(importlib.util.find_spec(package) for package in _PACKAGES):
        return
    # torch takes seconds and memory to import, and a build needs it for nothing else.
    subprocess.run([sys.executable, "-m", __name__, str(folder)], check=False)


def _write(folder: Path) -> None:
    settings = manifest.read(folder)
    from cogsmith.engine.description import describe

    try:
        tree = describe(folder / settings.checkpoint, settings.model_args, settings.quant, task=settings.task).tree
    except (UserError, ValueError, ImportError, OSError) as error:
        err.print(f"{settings.name}: no {MODULE_TREE}: {error}", style="dim", markup=False)
        return
    write_atomically(folder / MODULE_TREE, f"{tree}\n".encode())


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
