"""config.toml, in three steps: parse the text, validate it, complete it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from cogsmith import quant
from cogsmith.config import uri
from cogsmith.config.document import Document, Section, parse
from cogsmith.config.model import EXAMPLE, CogSettings, Model, Project
from cogsmith.config.raw import RawCog, RawConfig, RawModel
from cogsmith.config.uri import SourceUri
from cogsmith.config.validate import validate
from cogsmith.errors import ConfigError, Problem
from cogsmith.manifest import Limits


def load(path: Path, *, allow_placeholder: bool = False) -> Project:
    """Read the config at `path`. Raises ConfigError with every problem in it.

    `allow_placeholder` lets the example's account name stand in `dest_prefix`; such a project cannot be pushed.
    """
    document = parse(_read(path), str(path))
    # Without "..", like the local paths in it, so that the two can be compared.
    place = Path(os.path.abspath(path))
    if problems := validate(document, place.parent, allow_placeholder=allow_placeholder):
        raise ConfigError(str(path), problems)
    return complete(document, place)


def complete(document: Document, path: Path) -> Project:
    """Fill in what a valid document leaves out: defaults, `[defaults]`, canonical URIs. `path` is absolute."""
    prefix = RawConfig.model_validate(document.values).dest_prefix
    return Project(
        path=path,
        dest_prefix=prefix if prefix is None else prefix.rstrip("/") + "/",
        models={section.name: _model(section, path.parent) for section in document.sections()},
    )


def _read(path: Path) -> str:
    try:
        # A byte order mark, which some editors write, is no part of the text.
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        problem = Problem("there is no such file", fix=f"cp {EXAMPLE} {path}")
    except OSError as error:
        problem = Problem(f"cannot be read: {error.strerror}", fix="name a file that you may read")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = Problem("the text is not UTF-8", fix="save the file as UTF-8", line=line)
    raise ConfigError(str(path), [problem])


def _model(section: Section, root: Path) -> Model:
    raw = RawModel.model_validate(section.values)
    source = _source(raw).beneath(root)
    return Model(
        name=section.name,
        source=str(source),
        revision=source.revision,
        format=raw.format,
        output_precision=raw.output_precision,
        allow_pickle=raw.allow_pickle,
        model_args=quant.without_upstream(raw.config),
        quant=quant.complete(raw.quant.given()) or quant.from_upstream(raw.config),
        limits=msgspec.convert(raw.limits.model_dump(), Limits),
        cog=_cog(raw.cog),
        engine=raw.engine,
        vllm=raw.vllm,
        prepack=raw.prepack,
        requirements=tuple(raw.requirements),
        line=section.positions.line(("models", section.name)) or 0,
    )


def _source(raw: RawModel) -> SourceUri:
    source = uri.parse(raw.source or f"hf:{raw.huggingface.repo}")
    return source.with_revision(raw.huggingface.version)


def _cog(raw: RawCog) -> CogSettings:
    return CogSettings(
        gpu=raw.gpu,
        cuda=raw.cuda,
        python=raw.python,
        system_packages=tuple(raw.system_packages),
        concurrency=raw.concurrency,
    )
