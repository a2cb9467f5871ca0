"""What a conversion refuses, and what it leaves behind when it fails: nothing that counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from cogsmith.errors import ConversionError, MissingExtra, SourceError, UserError

from . import fake_hub as fake_hub_module
from .checkpoints import Watcher
from .conversions import MODEL, converted, left_in, opened, write
from .fake_hub import FakeHub
from .toy import ToyImporter, toy_files

REPOSITORY = Path(__file__).parents[2]


def test_packages_are_asked_for_before_anything_is_fetched(fake_hub: FakeHub, cache: Path):
    fake_hub.commit("org/toy", toy_files())
    importer = ToyImporter()
    importer.packages = ("torch", "no-such-package")
    source = opened(MODEL, cache, importer)
    resolved = source.resolve()
    with pytest.raises(MissingExtra, match="Converting hf:org/toy needs packages"):
        source.materialise(resolved, Watcher())
    assert not fake_hub.fetched()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (toy_files(extra=torch.zeros(3)), "extra has no place in it"),
        (toy_files(drop="model.norm.weight"), "model.norm.weight is missing"),
    ],
)
def test_a_model_that_does_not_use_every_tensor_is_refused_and_not_kept(files, words, tmp_path: Path, cache: Path):
    model = replace(MODEL, source=f"path:{write(tmp_path / 'toy', files)}")
    with pytest.raises(ConversionError, match=words):
        converted(model, cache)
    assert left_in(cache) == []


def kernel_s_answer() -> OSError:
    """What writing to the device that is always full raises. It is opened to be written to, never replaced."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        os.write(descriptor, b"x")
    except OSError as error:
        return error
    finally:
        os.close(descriptor)
    raise AssertionError("/dev/full took a byte")


def safetensors_words() -> SafetensorError:
    return SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("fault", [kernel_s_answer, safetensors_words])
def test_a_full_disk_leaves_nothing_and_says_so(fault, tmp_path: Path, cache: Path):
    model = replace(MODEL, source=f"path:{write(tmp_path / 'toy', toy_files())}")
    importer = ToyImporter()
    importer.fault = fault()
    with pytest.raises(UserError, match=f"the disk is full: path:{tmp_path}/toy could not be converted") as caught:
        converted(model, cache, importer)
    assert "COGSMITH_CACHE" in str(caught.value.fix)
    assert left_in(cache) == []
    assert set(converted(model, cache)) == {"config.json", "model.safetensors"}


def test_a_fault_of_the_importer_is_passed_on(tmp_path: Path, cache: Path):
    model = replace(MODEL, source=f"path:{write(tmp_path / 'toy', toy_files())}")
    importer = ToyImporter()
    importer.fault = ConversionError("not a toy")
    with pytest.raises(ConversionError, match="not a toy"):
        converted(model, cache, importer)
    assert left_in(cache) == []


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from sources.toy import ToyImporter
    from sources.checkpoints import Watcher
    from pathlib import Path
    from cogsmith.config.model import Model
    from cogsmith.sources.converted import ConvertedSource
    from cogsmith.sources.local import FolderLocation

    class Killed(ToyImporter):
        def convert(self, parts, options, folder, reporter):
            super().convert(parts, options, folder, reporter)
            os.kill(os.getpid(), signal.SIGKILL)

    place, cache = Path({place!r}), Path({cache!r})
    source = ConvertedSource(Killed(), [FolderLocation(place, cache)], Model("m", f"path:{{place}}"), cache)
    source.materialise(source.resolve(), Watcher())
"""


@pytest.mark.slow
def test_a_conversion_that_is_killed_leaves_nothing_that_counts(tmp_path: Path, cache: Path):
    place = write(tmp_path / "toy", toy_files())
    text = textwrap.dedent(KILLED).format(tests=str(REPOSITORY / "tests"), place=str(place), cache=str(cache))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    ended = subprocess.run([sys.executable, "-c", text], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    (piece,) = left_in(cache)
    assert piece.name.startswith(".")
    files = converted(replace(MODEL, source=f"path:{place}"), cache)
    assert [path.name for path in left_in(cache)] == [files["config.json"].parent.name]


def test_weights_that_change_after_they_were_listed(tmp_path: Path, cache: Path):
    place = write(tmp_path / "toy", toy_files())
    source = opened(replace(MODEL, source=f"path:{place}"), cache)
    resolved = source.resolve()
    (place / "weights.toy").write_bytes(toy_files(2.0)["weights.toy"])
    with pytest.raises(SourceError, match="changed"):
        source.materialise(resolved, Watcher())
    with pytest.raises(SourceError, match="changed"):
        opened(replace(MODEL, source=f"path:{place}"), cache).materialise(resolved, Watcher())


def test_a_download_that_is_damaged_is_not_converted(fake_hub: FakeHub, cache: Path, monkeypatch):
    """The Hub names the SHA-256 of what it keeps in LFS, as it keeps all large files."""
    monkeypatch.setattr(fake_hub_module, "LFS_SUFFIXES", (".toy",))
    fake_hub.commit("org/toy", toy_files())
    files = converted(MODEL, cache)
    (pointer,) = Path(os.environ["HF_HOME"]).rglob("weights.toy")
    pointer.resolve().write_bytes(toy_files(2.0)["weights.toy"])
    source = opened(MODEL, cache)
    with pytest.raises(SourceError, match=r"weights\.toy is damaged"):
        source.materialise(source.resolve(), Watcher())
    assert [path.name for path in left_in(cache)] == [files["config.json"].parent.name]
