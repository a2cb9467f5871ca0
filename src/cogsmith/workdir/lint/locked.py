"""Weights and a model's own code against cogsmith.lock, which knows what each file held when the folder was built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cogsmith.errors import Problem, UserError
from cogsmith.manifest import MODEL_CODE
from cogsmith.workdir import lock
from cogsmith.workdir.places import checkpoint_folder


def check(folder: Path) -> Iterator[Problem]:
    """Yield a problem for each locked file that is gone or altered. A folder that is in no lock has none."""
    try:
        entry = lock.entry_of(folder)
    except UserError as error:
        yield Problem(error.message, error.fix, lock.FILE_NAME)
        return
    if entry is None:
        return
    weights = checkpoint_folder(folder)
    places = [(weights / file.path, file) for file in entry.files]
    places += [(folder / MODEL_CODE / file.path, file) for file in entry.code]
    for path, file in places:
        where = path.relative_to(folder).as_posix()
        if not path.is_file():
            yield Problem("missing", "build this folder again", where)
        elif not lock.is_unaltered(path, file):
            yield Problem(f"not what {lock.FILE_NAME} says: altered since it was built", "build again", where)
