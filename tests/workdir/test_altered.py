"""Work directories that somebody changed after they were built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cogsmith.workdir import lint


def test_one_byte_changed_in_the_weights_is_found(workshop):
    workshop.add("tiny")
    workshop.build()
    weights = workshop.folder("tiny") / "checkpoints/model.safetensors"
    sound = weights.read_bytes()
    # A copy, as on another filesystem than the cache: a hard link would change the source too.
    weights.unlink()
    weights.write_bytes(sound[:-1] + b"\x01")
    (problem,) = lint.check(workshop.folder("tiny"))
    assert (problem.where, "altered" in problem.message) == ("checkpoints/model.safetensors", True)
    (built,) = workshop.build(frozen=True)
    assert built.plan.changes == ("checkpoints/model.safetensors was altered",)
    assert weights.read_bytes() == sound
    assert lint.check(workshop.folder("tiny")) == []


def test_code_that_is_gone(folder: Path):
    shutil.rmtree(folder / "cogsmith/lmtp")
    (folder / "cogsmith/manifest.py").unlink()
    (problem,) = lint.check(folder)
    assert problem.where in ("cogsmith/manifest.py", "cogsmith/lmtp/__init__.py")
    assert "missing, and " in problem.message


def test_pickles_with_consent(folder: Path):
    (folder / "checkpoints/pytorch_model.bin").write_bytes(b"x")
    (folder / "checkpoints/model.safetensors").unlink()
    # As if it had never been in a lock, which would miss the file.
    (folder.parents[1] / "cogsmith.lock").unlink()
    assert lint.check(folder)
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(content | {"allow_pickle": True}))
    assert lint.check(folder) == []
    (folder / "checkpoints/pytorch_model.bin").unlink()
    assert [problem.message for problem in lint.check(folder)] == ["holds no weights"]
