"""`cogsmith demo`: what its options and its questions come to."""

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cogsmith import manifest
from cogsmith.cli import page, serve
from cogsmith.cli.main import app
from cogsmith.errors import UserError
from cogsmith.gateway.open_model import Overrides, open_checkpoint
from cogsmith.sources.silent import Silent

from ..e2e.conftest import build_tiny
from ..sources.accessory.folders import DATA, copy


@pytest.fixture
def served(tmp_path, monkeypatch):
    """What would be served: (names, overrides or None, settings) of each gateway that is asked for."""
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(page, "open_models", lambda names, **_: [(names, None)])
    monkeypatch.setattr(page, "open_checkpoint", lambda names, overrides, **_: (names, overrides))
    monkeypatch.setattr(serve, "run", lambda find, settings: calls.extend((*one, settings) for one in find()))
    return calls


@pytest.fixture
def told(monkeypatch):
    """What is told besides the questions."""
    file = io.StringIO()
    monkeypatch.setattr(page, "err", Console(file=file, width=1000))
    return file


def demo(*arguments, text=None):
    return CliRunner().invoke(app, ["demo", *map(str, arguments)], input=text)


def test_names_are_served_as_they_are(served):
    assert demo("one", "two", "--port", "0").exit_code == 0
    ((names, overrides, settings),) = served
    assert (names, overrides) == (["one", "two"], None)
    assert (settings.port, settings.demo, settings.host, settings.cuda) == (0, True, "127.0.0.1", False)


@pytest.mark.parametrize("dash", ["-", "_"])
@pytest.mark.parametrize("again", [True, False], ids=["each named", "one after another"])
def test_the_options_of_the_original_demos_are_taken(served, dash, again):
    given = ["--pretrained-path", "base", *["--pretrained-path"] * again, "delta", "--llama-type", "llama"]
    given += ["--llama-config", "a.json", *["--llama-config"] * again, "b.json"]
    given += ["--tokenizer-path", "t.model", "--quant"]
    spelled = [re.sub(r"(?<=\w)-", dash, word) if word.startswith("--") else word for word in given]
    assert demo(*spelled).exit_code == 0
    ((names, overrides, _),) = served
    assert names == ["base", "delta"]
    assert overrides == Overrides("llama", (Path("a.json"), Path("b.json")), "t.model", quant=True)


def test_one_name_may_be_said_more_of(served):
    assert demo("folder", "--quant").exit_code == 0
    assert served[0][:2] == (["folder"], Overrides(quant=True))


@pytest.mark.parametrize(
    ("seen", "given", "left"), [(None, 2, "0,1"), ("3,5,7", 2, "3,5"), ("3", 2, "3"), ("3", 0, "3")]
)
def test_so_many_gpus_are_used(served, monkeypatch, seen, given, left):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    if seen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert demo("one", "--n_gpus", given).exit_code == 0
    assert served[0][2].cuda == bool(given)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left


@pytest.mark.parametrize("words", [("one", "two", "--quant"), ("one", "--pretrained-path", "two"), ("--quant",)])
def test_what_cannot_be_meant_is_a_usage_error(served, words):
    assert demo(*words).exit_code == 2
    assert served == []


def test_without_arguments_it_asks(served, tmp_path, told):
    for name in ("first", "second"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "cog.yaml").write_text("")
    result = demo(text="2\nn\n8090\n")
    assert result.exit_code == 0, result.output
    ((names, overrides, settings),) = served
    assert (names, overrides, settings.port, settings.cuda) == (["second"], None, 8090, False)
    assert "2  second" in told.getvalue()
    assert "This is: cogsmith demo second --port 8090" in told.getvalue()


def test_of_a_checkpoint_it_asks_what_its_folder_may_not_say(served, tmp_path, told):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "consolidated.00.pth").write_bytes(b"")
    result = demo(text="weights\nllama\na.json b.json\n\ny\ny\n\n")
    assert result.exit_code == 0, result.output
    ((names, overrides, settings),) = served
    assert (names, overrides) == (["weights"], Overrides("llama", (Path("a.json"), Path("b.json")), quant=True))
    assert (settings.cuda, settings.port) == (True, 8080)
    command = "cogsmith demo weights --llama-type llama --llama-config a.json --llama-config b.json --quant --cuda"
    assert f"{command} --port 8080" in told.getvalue()


def test_of_another_model_it_asks_less(served):
    result = demo(text="org/name\nn\nn\n0\n")
    assert result.exit_code == 0, result.output
    assert served[0][:2] == (["org/name"], None)


def test_answers_that_end_early_serve_nothing(served):
    assert demo(text="org/name\n").exit_code == 1
    assert served == []


def opened(names, overrides, tmp_path):
    return open_checkpoint(names, overrides, root=tmp_path, reporter=Silent(), cache=tmp_path / "cache")


def test_a_base_with_a_difference_becomes_one_model(tmp_path):
    paths = [str(DATA / "meta"), str(DATA / "delta")]
    folder = opened(paths, Overrides(), tmp_path)
    settings = manifest.read(folder)
    assert settings.name == "meta"
    assert (folder / "checkpoints" / "model.safetensors").is_file()
    assert settings.quant is None
    assert opened(paths, Overrides(), tmp_path) == folder
    assert opened(paths[:1], Overrides(), tmp_path) != folder


def test_quantisation_is_the_originals(tmp_path):
    folder = opened([str(copy("llama", tmp_path / "weights"))], Overrides(quant=True), tmp_path)
    quant = manifest.read(folder).quant
    assert (quant.bits, quant.type, quant.double, quant.compute_dtype) == (4, "nf4", False, "bfloat16")


def test_a_work_directory_is_as_it_was_built(tmp_path):
    (tmp_path / "work" / "one").mkdir(parents=True)
    (tmp_path / "work" / "one" / "cog.yaml").write_text("")
    with pytest.raises(UserError, match="'one' is a work directory"):
        opened(["one"], Overrides(quant=True), tmp_path)


@pytest.mark.slow
@pytest.mark.xdist_group("cog-server")
def test_questions_answered_on_stdin_lead_to_a_page(tmp_path):
    build_tiny(tmp_path)
    command = [sys.executable, "-m", "cogsmith.cli.main", "demo"]
    env = {**os.environ, "COGSMITH_CACHE": str(tmp_path / "cache")}
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdin=subprocess.PIPE, stdout=file, stderr=file)
    try:
        process.stdin.write(b"checkpoint\nn\nn\n0\n")
        process.stdin.close()
        deadline = time.monotonic() + 120
        while not (found := re.search(r"in a browser +(\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        url = found.group(1)
        assert "<title>Cogsmith</title>" in httpx2.get(url, trust_env=False).text
        described = httpx2.get(f"{url}api/models/checkpoint", timeout=120, trust_env=False).json()
        assert described["max_context"] == 8192
    finally:
        process.terminate()
        process.wait(60)
