"""`export.onnx` in config.toml, by the command line as a user has it, against plain transformers."""

import json

import onnx
import pytest
import torch
from typer.testing import CliRunner

from cogsmith import config
from cogsmith.cli.main import app
from cogsmith.errors import UserError

from .test_onnx import LENGTH, dimensions, run, saved, tokens, truth

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a checkpoint; what is written into its config.toml is the model `m`."""
    saved("llama", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COGSMITH_CACHE", str(tmp_path / "cache"))

    def write(*lines):
        text = ["[models.m]", 'source = "./llama"', "cog.gpu = false", *lines]
        (tmp_path / "config.toml").write_text("\n".join(text) + "\n")
        return tmp_path

    return write


def cogsmith(*words):
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result.stdout


def inputs_of(folder):
    return [dimensions(value) for value in onnx.load(folder / "model.onnx", load_external_data=False).graph.input]


def test_a_build_writes_the_graph_once(project):
    root = project("export.onnx = true")
    said = cogsmith("build")
    assert f"{root}/onnx/m  n_params=" in said
    assert "largest difference" in said
    assert inputs_of(root / "onnx/m") == [[8, LENGTH]] * 2
    ids, mask = tokens(8, LENGTH)
    torch.testing.assert_close(run(root / "onnx/m", ids, mask), truth(root / "llama", ids, mask), rtol=1e-4, atol=1e-4)
    assert not list((root / "work/m").rglob("*.onnx*"))
    before = (root / "onnx/m/model.onnx").stat()
    assert "n_params" not in cogsmith("build")
    assert (root / "onnx/m/model.onnx").stat() == before
    # Other settings make it again, over what the last build left.
    project("export.onnx.dynamic = true", "export.onnx.max_seq_len = 16")
    (facts,) = json.loads(cogsmith("build", "--json"))
    assert (facts["onnx"]["dynamic"], facts["onnx"]["length"]) == (True, 16)
    assert inputs_of(root / "onnx/m") == [["batch", "sequence"]] * 2
    # What somebody has put there is somebody's.
    (root / "onnx/m/mine").write_text("x")
    project("export.onnx = true")
    result = CliRunner().invoke(app, ["build"])
    assert isinstance(result.exception, UserError)
    assert (root / "onnx/m/mine").exists()


def test_the_command_takes_what_the_section_says(project):
    root = project("export.onnx.batch_size = 3", "export.onnx.max_seq_len = 5", 'export.onnx.output_folder = "there"')
    config.load(root / "config.toml")
    cogsmith("build")
    assert inputs_of(root / "there") == [[3, 5]] * 2
    cogsmith("export", "onnx", "m", "--force", "--export_batch_size", "1")
    assert inputs_of(root / "there") == [[1, 5]] * 2
    cogsmith("export", "onnx", "m", "--output_folder", root / "here", "--dynamic", "--no-verify")
    assert inputs_of(root / "here") == [["batch", "sequence"]] * 2
    project()
    result = CliRunner().invoke(app, ["export", "onnx", "m"])
    assert result.exit_code == 2
    assert "--output" in result.stderr
