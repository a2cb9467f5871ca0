"""config.toml, in three steps: parse the text, validate it, complete it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from cogsmith import quant
from cogsmith.config import exporting, prompting, uri
from cogsmith.config.document import Document, Section, parse
from cogsmith.config.model import EXAMPLE, MAX_SEQ_LEN, CodeSettings, CogSettings, Model, OutputSettings, Project
from cogsmith.config.raw import RawConfig, RawModel
from cogsmith.config.tables import RawCode, RawCog, RawOutput, listed
from cogsmith.config.uri import SourceUri
from cogsmith.config.validate import validate
from cogsmith.errors import ConfigError, Problem
from cogsmith.manifest import IMAGE_TEXT, Limits, understood
from cogsmith.quant import Quant


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
    source, *further = (place.beneath(root) for place in _sources(raw))
    return Model(
        name=section.name,
        source=str(source),
        revision=source.revision,
        format=raw.format,
        output_precision=raw.output_precision,
        allow_pickle=raw.allow_pickle,
        model_args=understood(quant.without_upstream(raw.config)),
        quant=_quant(raw),
        limits=msgspec.convert(raw.limits.model_dump(), Limits),
        cog=_cog(raw.cog),
        task=raw.task,
        image_transform=raw.image_transform,
        engine=raw.engine,
        vllm=raw.vllm,
        prepack=raw.prepack,
        requirements=tuple(raw.requirements),
        line=section.positions.line(("models", section.name)) or 0,
        further_sources=tuple(place.pinned for place in further),
        allow_patterns=listed(raw.allow_patterns),
        tokenizer=uri.parse(raw.tokenizer).beneath(root).pinned if raw.tokenizer else None,
        llama_type=raw.llama_type,
        llama_config=tuple(_beneath(text, root) for text in listed(raw.llama_config)),
        source_cache=_beneath(raw.source_cache, root) if raw.source_cache else None,
        code=_code(raw.code, root),
        prompt=prompting.complete(raw.prompt, root, cuts=MAX_SEQ_LEN in raw.config),
        output=_output(raw.output, root),
        onnx=exporting.complete(section, raw.export.onnx, root),
    )


def _quant(raw: RawModel) -> Quant | None:
    asked = quant.complete(raw.quant.given()) or quant.from_upstream(raw.config)
    # A build quantises models of texts whose class is transformers'.
    at_load = raw.code.model or raw.task == IMAGE_TEXT
    return msgspec.structs.replace(asked, at="load") if asked and at_load else asked


def _sources(raw: RawModel) -> list[SourceUri]:
    """Return what `source` or `huggingface.repo` names; a bare revision is that of the only one."""
    texts = listed(raw.source) or (f"hf:{raw.huggingface.repo}",)
    return [uri.parse(text).with_revision(raw.huggingface.version) for text in texts]


def _beneath(text: str, root: Path) -> Path:
    return Path(os.path.abspath(root / Path(text).expanduser()))


def _code(raw: RawCode, root: Path) -> CodeSettings | None:
    if not (raw.model_type and raw.config and raw.model):
        return None
    path = _beneath(raw.path, root) if raw.path else None
    return CodeSettings(path, listed(raw.files), raw.model_type, raw.config, raw.model)


def _output(raw: RawOutput, root: Path) -> OutputSettings | None:
    if raw.uri is None:
        return None
    return OutputSettings(str(uri.parse_output(raw.uri).beneath(root)), raw.format, raw.force)


def _cog(raw: RawCog) -> CogSettings:
    return CogSettings(
        gpu=raw.gpu,
        cuda=raw.cuda,
        python=raw.python,
        system_packages=tuple(raw.system_packages),
        concurrency=raw.concurrency,
    )
