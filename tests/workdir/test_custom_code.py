"""A model's own Python files: taken only when named, to the byte, locked, and never run by a build."""

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cogsmith import manifest
from cogsmith.config.model import Model
from cogsmith.errors import LockDrift, SourceError
from cogsmith.workdir import lint, model_code, pins

from .own_code import CLASSES, CONFIGURATION, FILES, MODELING


def test_without_code_nothing_of_it_is_taken(shop):
    shop.keys = {}
    shop.write(shop.checkpoint, FILES)
    shop.write(shop.checkpoint, {"config.json": json.dumps({"model_type": "llama", "auto_map": {"AutoConfig": "x.Y"}})})
    shop.build()
    assert not list((shop.folder / "checkpoints").rglob("*.py"))
    assert not (shop.folder / "model_code").exists()
    assert manifest.read(shop.folder).code is None
    assert "code" not in json.loads((shop.root / "cogsmith.lock").read_text())["models"]["m"]
    assert any("asks for its own code (configuration_x.py, modeling_x.py)" in note for note in shop.reporter.notes)


def test_a_folder_is_taken_whole_and_nothing_else(shop):
    shop.write(shop.code, {"parts/deep.py": "x = 1\n", "notes.txt": "no", ".hidden.py": "(", ".git/hook.py": "("})
    shop.build()
    expected = {name: (shop.code / name).read_bytes() for name in (*FILES, "parts/deep.py")}
    assert shop.taken == expected
    assert not list((shop.folder / "checkpoints").rglob("*.py"))
    assert [(file.path, file.size, file.sha256) for file in shop.entry.code] == [
        (name, len(content), hashlib.sha256(content).hexdigest()) for name, content in sorted(expected.items())
    ]
    assert {(shop.folder / "model_code" / name).stat().st_mode & 0o777 for name in expected} == {0o644}
    assert manifest.read(shop.folder).code == manifest.Code(**CLASSES)
    assert lint.check(shop.folder) == []
    assert shop.reporter.notes == []


def test_a_single_file_needs_no_module_before_its_classes(shop):
    shop.write(shop.root, {"mine.py": CONFIGURATION + MODELING.replace("from .configuration_x import MyConfig", "")})
    shop.keys |= {"path": "mine.py", "config": "MyConfig", "model": "MyForCausalLM"}
    shop.build()
    assert list(shop.taken) == ["mine.py"]
    assert manifest.read(shop.folder).code.model == "mine.MyForCausalLM"


def test_named_files_of_a_folder(shop):
    shop.write(shop.code, {"train.py": "import wandb\n"})
    shop.keys["files"] = sorted(FILES)
    shop.build()
    assert set(shop.taken) == set(FILES)


def test_files_at_the_source_are_those_of_its_revision(shop, fake_hub, safetensors):
    weights = {"config.json": b'{"model_type": "my_gpt", "auto_map": {}}', "model.safetensors": safetensors(a=3)}
    code = {name: text.encode() for name, text in FILES.items()}
    first = fake_hub.commit("acme/own", {**weights, **code, "other.py": b"("})
    later = {name: text + b"\n# later\n" for name, text in code.items()}
    fake_hub.commit("acme/own", {**weights, **later})
    shop.lines = [f'source = "hf:acme/own@{first}"']
    shop.keys = {"files": sorted(FILES), **CLASSES}
    shop.build()
    assert shop.taken == code
    assert fake_hub.sent["other.py"] == 0
    assert shop.entry.revision == first
    assert shop.build().plan.state == "unchanged"
    assert shop.reporter.notes == []


def test_files_that_the_source_has_not(shop, fake_hub, safetensors):
    files = {"config.json": b'{"model_type": "my_gpt"}', "model.safetensors": safetensors(a=3), "there.py": b""}
    fake_hub.commit("acme/own", files)
    shop.lines = ['source = "hf:acme/own"']
    shop.keys = {"files": sorted(FILES), **CLASSES}
    text = shop.refusal(SourceError)
    assert "hf:acme/own has no configuration_x.py, modeling_x.py" in text
    assert "its Python files are there.py" in text


def test_a_second_build_changes_nothing(shop, snapshot):
    shop.build()
    before = snapshot(shop.folder)
    locked = (shop.root / "cogsmith.lock").read_bytes()
    assert shop.build().plan.state == "unchanged"
    assert shop.build(frozen=True).plan.state == "unchanged"
    assert snapshot(shop.folder) == before
    shutil.rmtree(shop.folder)
    shop.build()
    assert (shop.root / "cogsmith.lock").read_bytes() == locked


def test_an_altered_file_is_noticed_and_made_anew(shop):
    shop.build()
    target = shop.folder / "model_code/modeling_x.py"
    sound = target.read_bytes()
    target.write_bytes(sound + b"# by hand\n")
    assert ["not what cogsmith.lock says" in p.message for p in lint.check(shop.folder)] == [True]
    (shop.folder / "model_code/extra.py").write_text("")
    built = shop.build(frozen=True)
    assert built.plan.changes == ("model_code/extra.py does not belong there", "model_code/modeling_x.py was altered")
    assert target.read_bytes() == sound
    assert lint.check(shop.folder) == []


def test_code_that_changed_is_drift(shop):
    shop.build()
    before = shop.taken
    with (shop.code / "modeling_x.py").open("a") as file:
        file.write("# more\n")
    size = len(before["modeling_x.py"])
    assert shop.plan().changes == (f"code file modeling_x.py: {size} -> {size + 7} bytes",)
    with pytest.raises(LockDrift, match=r"code file modeling_x\.py"):
        shop.build(frozen=True)
    assert shop.taken == before
    assert shop.build().plan.state == "changed"
    assert shop.taken != before


def test_a_lock_from_before_is_still_read(shop):
    shop.keys = {}
    shop.write(shop.checkpoint, {"config.json": "{}"})
    shop.build()
    path = shop.root / "cogsmith.lock"
    assert "code" not in json.loads(path.read_text())["models"]["m"]
    shop.keys = {"path": "./code", **CLASSES}
    shop.write(shop.checkpoint, {"config.json": '{"model_type": "my_gpt"}'})
    assert "code file modeling_x.py added" in shop.plan().changes


@pytest.mark.slow
def test_a_plan_shows_the_files(shop, capfd):
    shop.load()
    command = [sys.executable, "-m", "cogsmith.cli.main", "build", "--plan"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = [
        subprocess.run([*command, *more], cwd=shop.root, env=environ, capture_output=True) for more in ([], ["--json"])
    ]
    digest = hashlib.sha256((shop.code / "modeling_x.py").read_bytes()).hexdigest()
    assert "m: runs modeling_x.py, " in run[0].stdout.decode()
    assert digest in run[0].stdout.decode()
    assert [file["path"] for file in json.loads(run[1].stdout)[0]["code"]] == sorted(FILES)
    assert not (shop.root / "work").exists()


@pytest.mark.parametrize("line", ["quant.bits = 4", "config.load_in_4bit = true"])
def test_quantisation_is_left_to_the_server(shop, line):
    shop.lines.append(line)
    shop.build()
    assert manifest.read(shop.folder).quant.at == "load"


@pytest.mark.slow
def test_inspecting_runs_nothing_of_it(shop):
    shop.write(shop.checkpoint, {"config.json": '{"model_type": "my_gpt", "dtype": "bfloat16", "vocab_size": 7}'})
    shop.build()
    command = [sys.executable, "-m", "cogsmith.cli.main", "inspect", "m"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def inspect(option):
        return subprocess.run([*command, option], cwd=shop.root, env=environ, capture_output=True, text=True)

    facts = json.loads(inspect("--json").stdout)
    assert (facts["architecture"], facts["n_params"], facts["footprint_bytes"]) == ("MyForCausalLM", 8, 16)
    refused = inspect("--tree")
    assert refused.returncode == 1
    assert "leave out --tree" in refused.stderr
    assert not shop.mark.exists()


def test_lint_knows_a_folder_that_does_not_fit(shop):
    shop.build()
    (shop.root / "cogsmith.lock").unlink()
    code, checkpoint = shop.folder / "model_code", shop.folder / "checkpoints/config.json"

    def problems():
        return [(problem.where, problem.message) for problem in lint.check(shop.folder)]

    assert problems() == []
    checkpoint.unlink()
    checkpoint.write_text('{"model_type": "gpt2"}')
    assert problems()[0][0] == "code.model_type"
    checkpoint.write_text('{"model_type": "my_gpt"}')
    (code / "configuration_x.py").rename(code / "configuration_y.py")
    assert (
        "model_code/modeling_x.py",
        "`from .configuration_x import` names configuration_x.py, which is not among the files",
    ) in problems()
    (shop.folder / ".dockerignore").write_text("model_code\n")
    assert any(where == ".dockerignore" for where, _ in problems())
    shutil.rmtree(code)
    assert ("model_code", "missing") in problems()


def test_what_torch_and_transformers_bring_along_is_what_their_metadata_say():
    """The list is written down, because whoever builds need not have them installed."""
    waiting = [canonicalize_name(Requirement(line).name) for line in pins.requirements(Model("m", "hf:a/b"))]
    closure = set()
    while waiting:
        name = waiting.pop()
        if name in closure:
            continue
        closure.add(name)
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    modules = importlib.metadata.packages_distributions()
    for module in model_code._BROUGHT_ALONG:
        assert {canonicalize_name(name) for name in modules[module]} & closure, module
