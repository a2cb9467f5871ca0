"""From what a user asks to have served to a work directory: one that is there, or one built on first use.

A checkpoint folder, a GGUF file and a repository on the Hugging Face Hub go through the real build, into a folder of
the cache, so that the same Cog runtime serves them all.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cogsmith.cache import cache_root
from cogsmith.config import CogSettings, Model, Project, document, rules
from cogsmith.config.findings import Refusal
from cogsmith.errors import ConfigError, Problem, ProblemsError, SourceError, UserError
from cogsmith.sources.base import Reporter
from cogsmith.workdir import places
from cogsmith.workdir.build import build

_HUB = "hf:"
_CONFIG = "config.toml"


def open_models(names: Sequence[str], *, root: Path, reporter: Reporter, cache: Path | None = None) -> list[Path]:
    """Return the work directories of `names`, in that order; of all in `work/` below `root`, where none is named.

    A name is that of a work directory under `work/`, a path of one, of a checkpoint folder or of a GGUF file, or a
    repository on the Hub. Raises UserError, with every name that has no meaning, before anything is built.
    """
    chosen = list(names) or places.rendered(root)
    if not chosen:
        raise UserError("there is nothing to serve: work/ holds no work directory", fix="run ./build, or name a model")
    opened = _understood(chosen, root)
    return [_build(source, root, reporter, cache) if isinstance(source, str) else source for source in opened]


def model_folder(name: str, *, root: Path, reporter: Reporter, cache: Path | None = None) -> Path:
    """Return the folder to load a model from: a work directory, by name or path, or a checkpoint folder as it is.

    What else `open_models` takes becomes a work directory in the cache, on first use. Raises as that does.
    """
    if found := places.find(name, root):
        return found
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return path.absolute()
    return open_models([name], root=root, reporter=reporter, cache=cache)[0]


def _understood(names: Sequence[str], root: Path) -> list[Path | str]:
    """A work directory, or a source's canonical URI, for each name. Raises the names' problems, all together."""
    found: list[Path | str] = []
    problems = [Problem(f"{name!r} is named {n} times", "name it once") for name, n in Counter(names).items() if n > 1]
    for name in names:
        try:
            found.append(places.find(name, root) or _source(name, root))
        except Refusal as error:
            problems.append(Problem(error.message, error.fix))
    if problems:
        raise ProblemsError("what to serve", problems)
    return found


def _source(name: str, root: Path) -> str:
    """The source's URI for a name that is no work directory. Raises Refusal."""
    path = Path(name)
    if (path / "config.json").is_file() or (path.suffix.lower() == ".gguf" and path.is_file()):
        return f"path:{path.absolute()}"
    if name in _configured(root):
        raise Refusal(f"{name!r} of {_CONFIG} is not built yet", f"run ./build {name}")
    try:
        return _HUB + rules.repo_id(name)
    except Refusal:
        raise Refusal(
            f"{name!r} is no work directory, no checkpoint folder and no repository on the Hugging Face Hub",
            places.what_there_is(name, root),
        ) from None


def _configured(root: Path) -> set[str]:
    """Names of the models in the config beside `work/`; none where that cannot be read."""
    try:
        text = (root / _CONFIG).read_text(encoding="utf-8")
        return {section.name for section in document.parse(text, _CONFIG).sections()}
    except (OSError, ValueError, ConfigError):
        return set()


def _build(source: str, root: Path, reporter: Reporter, cache: Path | None) -> Path:
    """Build a work directory of the weights at `source`, or bring the one of the last time up to date."""
    name = _model_name(source)
    home = (cache or cache_root()) / "served" / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    home.mkdir(parents=True, exist_ok=True)
    model = Model(name=name, source=source, cog=CogSettings(gpu=False))
    project = Project(path=home / _CONFIG, dest_prefix=None, models={name: model})
    try:
        return build(project, reporter=reporter, cache=cache)[0].folder
    except SourceError as error:
        if not source.startswith(_HUB):
            raise
        asked = source.removeprefix(_HUB)
        raise SourceError(
            f"{asked!r} is no work directory, and {error.message}",
            fix=f"{places.what_there_is(asked, root)}; else {error.fix}",
        ) from error


def _model_name(source: str) -> str:
    """The name under which a checkpoint is served: its own last one, in the letters that a model's name may have."""
    stem = re.split(r"[:/]", source)[-1].lower().removesuffix(".gguf")
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("._-")[: rules.MODEL_NAME_LENGTH].strip("._-") or "model"
