"""A source of weights that needs no network, and folders built from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from cogsmith.config.model import Model, Project
from cogsmith.errors import SourceError
from cogsmith.sources.base import Checkpoint, CheckpointFile, Reporter, Resolved, SourceFile, Task
from cogsmith.workdir.build import build

from .own_code import Shop


def safetensors_bytes(**tensors: int) -> bytes:
    """Return a safetensors file holding each named tensor of so many F32 zeros."""
    header: dict[str, object] = {}
    end = 0
    for name, elements in tensors.items():
        start, end = end, end + 4 * elements
        header[name] = {"dtype": "F32", "shape": [elements], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


CONFIG = json.dumps(
    {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}
).encode()


class FakeSource:
    """Files in a folder, at a revision that the test chooses."""

    def __init__(self, folder: Path, revision: str = "a" * 40, error: str | None = None) -> None:
        self.folder = folder
        self.revision = revision
        self.error = error
        self.fetch_bytes = 0
        self.materialised = 0

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write `files` into the folder that stands for the cache."""
        for path, content in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.write_bytes(content)

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def resolve(self) -> Resolved:
        if self.error:
            raise SourceError(self.error, fix="try again")
        size = sum(path.stat().st_size for path in self._paths())
        files = (SourceFile("weights", self.fetch_bytes),)
        return Resolved("hf:org/repo", self.revision, "hf", files, size, parameters=1000)

    def materialise(self, resolved: Resolved, reporter: Reporter) -> Checkpoint:
        self.materialised += 1
        return Checkpoint(
            tuple(
                CheckpointFile(
                    path.relative_to(self.folder).as_posix(),
                    path,
                    path.stat().st_size,
                    hashlib.sha256(path.read_bytes()).hexdigest(),
                )
                for path in self._paths()
            )
        )


class Silent:
    """A reporter that shows nothing."""

    @contextmanager
    def task(self, label: str, total: int | None = None, *, unit: str = "bytes") -> Iterator[Task]:
        yield self

    def advance(self, amount: int) -> None: ...

    def note(self, text: str) -> None: ...


class Workshop:
    """A project whose models come from FakeSources, with the calls that tests repeat."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.prefix: str | None = "r8.im/me/"
        self.models: dict[str, Model] = {}
        self.sources: dict[str, FakeSource] = {}

    def add(self, name: str, **settings: object) -> FakeSource:
        """Add a model with a sound little checkpoint."""
        self.models[name] = Model(name, "hf:org/repo", **settings)
        source = FakeSource(self.root / "cache" / name)
        source.put({"config.json": CONFIG, "model.safetensors": safetensors_bytes(a=3, b=5)})
        return self.sources.setdefault(name, source)

    @property
    def project(self) -> Project:
        return Project(self.root / "config.toml", self.prefix, dict(self.models))

    def open(self, model: Model, cache: Path | None) -> FakeSource:
        return self.sources[model.name]

    def build(self, *names: str, frozen: bool = False):
        return build(self.project, names, frozen=frozen, reporter=Silent(), open_source=self.open)

    def folder(self, name: str) -> Path:
        return self.root / "work" / name


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setenv("COGSMITH_CACHE", str(tmp_path / "digests"))
    return Workshop(tmp_path)


@pytest.fixture
def folder(workshop: Workshop) -> Path:
    """A freshly built work directory."""
    workshop.add("tiny")
    workshop.build()
    return workshop.folder("tiny")


@pytest.fixture
def safetensors() -> Callable[..., bytes]:
    return safetensors_bytes


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, tuple[int, int, int]]]:
    """Return a function that records inode, mode and modification time of every file under a folder."""

    def take(folder: Path) -> dict[str, tuple[int, int, int]]:
        files = {path.relative_to(folder).as_posix(): path.stat() for path in sorted(folder.rglob("*"))}
        return {path: (stat.st_ino, stat.st_mode, stat.st_mtime_ns) for path, stat in files.items()}

    return take


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A project with one model that brings its own code."""
    monkeypatch.setenv("COGSMITH_CACHE", str(tmp_path / "cache"))
    return Shop(tmp_path, safetensors_bytes)
