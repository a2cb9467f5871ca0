"""`cogsmith delta` as a user runs it. What it writes is proven in tests/sources/accessory/test_delta.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

DATA = Path(__file__).parents[1] / "sources" / "accessory" / "data"
META, TUNED, DELTA = (str(DATA / name) for name in ("meta", "tuned", "delta"))

pytestmark = pytest.mark.slow


def tensors(folder):
    (path,) = folder.glob("consolidated.*.pth")
    return torch.load(path, weights_only=True)["model"]


def test_extract_then_apply_gives_the_tuned_weights_back(project):
    result = project.run("delta", "extract", "--base", META, "--tuned", TUNED, "--out", "delta")
    assert (result.returncode, result.stdout) == (0, f"delta: what {TUNED} has over {META}\n"), result.stderr
    result = project.run("delta", "apply", "--base", META, "--delta", "delta", "--out", "out/full")
    assert (result.returncode, result.stdout) == (0, f"out/full: {META} with delta applied\n"), result.stderr
    have = tensors(project.root / "out/full")
    want = torch.load(DATA / "tuned/consolidated.00-of-02.model.pth", weights_only=True)["model"]
    name = "llma.layers.0.attention.wq.weight"
    torch.testing.assert_close(have[name][:8].float(), want[name].float(), atol=2e-3, rtol=0)


def test_to_hf_writes_a_checkpoint_folder(project):
    result = project.run("delta", "apply", "--base", META, "--delta", DELTA, "--out", "hf", "--to", "hf")
    assert result.returncode == 0, result.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in project.root.glob("hf/*")}


def test_what_is_there_is_only_replaced_with_force(project):
    project.write("full/mine.txt", "mine")
    command = ["delta", "apply", "--base", META, "--delta", DELTA, "--out", "full"]
    refused = project.run(*command)
    assert refused.returncode == 1
    assert "full is not empty" in refused.stderr
    assert (project.root / "full/mine.txt").read_text() == "mine"
    assert project.run(*command, "--force").returncode == 0
    assert not (project.root / "full/mine.txt").exists()
    assert tensors(project.root / "full")


def test_a_failure_leaves_what_was_there_and_nothing_half_written(project):
    project.write("full/mine.txt", "mine")
    result = project.run("delta", "apply", "--base", DELTA, "--delta", DELTA, "--out", "full", "--force")
    assert result.returncode == 1
    assert "this should be the base" in result.stderr
    assert [path.name for path in (project.root / "full").iterdir()] == ["mine.txt"]
    assert sorted(path.name for path in project.root.iterdir()) == ["checkpoint", "config.toml", "full"]


@pytest.mark.parametrize("out", ["base", "."])
def test_what_is_read_is_never_written_over(project, out):
    project.write("base/consolidated.00.pth", "")
    result = project.run("delta", "extract", "--base", "base", "--tuned", TUNED, "--out", out, "--force")
    assert result.returncode == 1
    assert f"--out {out} would replace base" in result.stderr
    assert (project.root / "base/consolidated.00.pth").exists()
