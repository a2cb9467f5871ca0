"""From what a user asks to have served to a work directory: one that is there, or one built on first use.

A checkpoint folder, a GGUF file and a repository on the Hugging Face Hub go through the real build, into a folder of
the cache, so that the same Cog runtime serves them all.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cogsmith import quant
from cogsmith.cache import cache_root
from cogsmith.config import CogSettings, Model, Project, document, rules
from cogsmith.config.findings import Refusal
from cogsmith.errors import ConfigError, Problem, ProblemsError, SourceError, UserError
from cogsmith.sources.base import Reporter
from cogsmith.workdir import places
from cogsmith.workdir.build import build

_HUB = "hf:"
_CONFIG = "config.toml"
_FILES = (".gguf", ".pt")


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


@dataclass(frozen=True, slots=True)
class Overrides:
    """What is said of a checkpoint beside where it is, in the words of LLaMA2-Accessory's demos. `quant` is 4 bits."""

    llama_type: str | None = None
    llama_config: tuple[Path, ...] = ()
    tokenizer: str | None = None
    quant: bool = False


def open_checkpoint(
    names: Sequence[str], overrides: Overrides, *, root: Path, reporter: Reporter, cache: Path | None = None
) -> Path:
    """Return the work directory of one model, built from the checkpoint of `names` with `overrides`.

    A name is one that `open_models` builds of, or any existing path; further ones are laid over the first, as
    differences. Raises UserError.
    """
    first, *further = [_source_of_override(name, root) for name in names]
    model = Model(
        name=_model_name(first),
        source=first,
        further_sources=tuple(further),
        llama_type=overrides.llama_type,
        llama_config=tuple(path.absolute() for path in overrides.llama_config),
        tokenizer=None if overrides.tokenizer is None else _source_of_override(overrides.tokenizer, root),
        quant=quant.complete({"preset": "accessory"}) if overrides.quant else None,
        cog=CogSettings(gpu=False),
    )
    return _build_in_cache(model, repr(model), reporter, cache)


def _source_of_override(name: str, root: Path) -> str:
    """The URI of what is named. Raises UserError: a work directory is built already, and takes no overrides."""
    if places.find(name, root) is not None:
        raise UserError(
            f"{name!r} is a work directory, built as it is", fix="change its section in config.toml and run ./build"
        )
    try:
        return f"path:{Path(name).absolute()}" if Path(name).exists() else _source(name, root)
    except Refusal as refusal:
        raise UserError(refusal.message, fix=refusal.fix) from None


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
    if _is_checkpoint(path):
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


def _is_checkpoint(path: Path) -> bool:
    """Whether there is what could be weights: those of Hugging Face, of GGUF, or of a program whose format is known."""
    if path.is_file():
        return path.suffix.lower() in _FILES
    return (path / "config.json").is_file() or any(path.glob("*.pth"))


def _configured(root: Path) -> set[str]:
    """Names of the models in the config beside `work/`; none where that cannot be read."""
    try:
        text = (root / _CONFIG).read_text(encoding="utf-8")
        return {section.name for section in document.parse(text, _CONFIG).sections()}
    except (OSError, ValueError, ConfigError):
        return set()


def _build(source: str, root: Path, reporter: Reporter, cache: Path | None) -> Path:
    """Build a work directory of the weights at `source`, or bring the one of the last time up to date."""
    model = Model(name=_model_name(source), source=source, cog=CogSettings(gpu=False))
    try:
        return _build_in_cache(model, source, reporter, cache)
    except SourceError as error:
        if not source.startswith(_HUB):
            raise
        asked = source.removeprefix(_HUB)
        raise SourceError(
            f"{asked!r} is no work directory, and {error.message}",
            fix=f"{places.what_there_is(asked, root)}; else {error.fix}",
        ) from error


def _build_in_cache(model: Model, key: str, reporter: Reporter, cache: Path | None) -> Path:
    """Build a model's work directory in the cache, in a place of its own for each `key`."""
    home = (cache or cache_root()) / "served" / f"{model.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    home.mkdir(parents=True, exist_ok=True)
    project = Project(path=home / _CONFIG, dest_prefix=None, models={model.name: model})
    return build(project, reporter=reporter, cache=cache)[0].folder


def _model_name(source: str) -> str:
    """The name under which a checkpoint is served: its own last one, in the letters that a model's name may have."""
    stem = re.split(r"[:/]", source)[-1].lower().removesuffix(".gguf")
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("._-")[: rules.MODEL_NAME_LENGTH].strip("._-") or "model"
