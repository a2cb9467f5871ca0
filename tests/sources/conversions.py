"""Conversions of the toy's format, and what they leave."""

from __future__ import annotations

from pathlib import Path

from cogsmith.config.model import Model
from cogsmith.sources.base import Checkpoint
from cogsmith.sources.converted import ConvertedSource
from cogsmith.sources.locations import locate

from .checkpoints import Watcher
from .toy import ToyImporter

MODEL = Model("m", "hf:org/toy", format="auto")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        (folder / path).write_bytes(content)
    return folder


def opened(model: Model, cache: Path, importer: ToyImporter | None = None) -> ConvertedSource:
    places = [locate(text, cache, downloads=model.source_cache)[0] for text in model.sources]
    tokenizer = locate(model.tokenizer, cache)[0] if model.tokenizer else None
    return ConvertedSource(importer or ToyImporter(), places, model, cache, tokenizer)


def converted(model: Model, cache: Path, importer: ToyImporter | None = None) -> dict[str, Path]:
    source = opened(model, cache, importer)
    return origins(source.materialise(source.resolve(), Watcher()))


def origins(checkpoint: Checkpoint) -> dict[str, Path]:
    return {file.path: file.origin for file in checkpoint.files}


def left_in(cache: Path) -> list[Path]:
    """What conversions have left: finished folders, and pieces."""
    return list((cache / "toy").iterdir()) if (cache / "toy").exists() else []
