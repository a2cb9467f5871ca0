"""A Hugging Face folder that brings its own code: it loads with trust_remote_code, and not without."""

import json
import os
import subprocess
import sys

import pytest
import torch

from cogsmith.config.model import CodeSettings, Model
from cogsmith.errors import SourceError
from cogsmith.manifest import Code
from cogsmith.sources.custom_code import CodeFile, CustomCode, read, write_auto_map

from ..engine.own_models import FLAT, WINDY, flat, windy

# In a process of its own: nothing registered, and a folder of its own for what transformers copies there.
PROGRAM = """
import json, sys, torch
from transformers import AutoModelForCausalLM
trust = {"yes": {"trust_remote_code": True}, "no": {"trust_remote_code": False}, "unsaid": {}}[sys.argv[2]]
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], local_files_only=True, dtype="float32", **trust).eval()
with torch.no_grad():
    logits = model(input_ids=torch.tensor([[1, 2, 3, 4, 5]])).logits[0]
print(json.dumps([type(model).__name__, logits.tolist()]))
"""


def code_of(path, model_type, config, model):
    settings = CodeSettings(path, (), model_type, config, model)
    return read(Model("m", "hf:a/b", code=settings), None, lambda: pytest.fail("nothing lies at the source"))


def loaded(folder, trust, home):
    environ = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, folder, trust]
    return subprocess.run(command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "path", "names"),
    [
        (windy, WINDY, ("windy", "configuration_windy.WindyConfig", "modeling_windy.WindyForCausalLM")),
        (flat, FLAT / "flat.py", ("flat", "FlatConfig", "FlatLM")),
    ],
)
def test_a_folder_with_its_code_loads_only_where_it_is_trusted(tmp_path, make, path, names):
    model = make()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    write_auto_map(folder, code_of(path, *names))
    run = loaded(folder, "yes", tmp_path / "home")
    assert run.returncode == 0, run.stderr
    name, logits = json.loads(run.stdout)
    assert name == type(model).__name__
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[1, 2, 3, 4, 5]])).logits[0]
    assert torch.allclose(torch.tensor(logits), expected, atol=1e-4)
    for trust in ("no", "unsaid"):
        refused = loaded(folder, trust, tmp_path / "other-home")
        assert refused.returncode == 1
        assert "trust_remote_code" in refused.stderr


def test_what_config_json_says_besides_stays(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "my", "auto_map": {"AutoTokenizer": ["a.B", null]}, "n": 3}')
    classes = Code(model_type="my", config="c.Config", model="m.Model")
    write_auto_map(tmp_path, CustomCode(classes, (CodeFile("c.py", b"x"), CodeFile("m.py", b"y"))))
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "model_type": "my",
        "auto_map": {"AutoTokenizer": ["a.B", None], "AutoConfig": "c.Config", "AutoModelForCausalLM": "m.Model"},
        "n": 3,
    }
    assert ((tmp_path / "c.py").read_bytes(), (tmp_path / "m.py").read_bytes()) == (b"x", b"y")


@pytest.mark.parametrize(
    ("classes", "files", "wanted"),
    [
        (("sub.c.Config", "m.Model"), ("sub/c.py", "m.py"), "sub/c.py would be below"),
        (("c.Config", "m.Model"), ("c.py", "m.py", "deep/er.py"), "deep/er.py would be below"),
        (("c.Config", "m.Model"), ("c.py", "m.py", "config.json"), "has config.json already"),
        (("Config", "m.Model"), ("__init__.py", "m.py"), "not both of the form MODULE.CLASS"),
    ],
)
def test_what_transformers_would_not_find_is_refused(tmp_path, classes, files, wanted):
    (tmp_path / "config.json").write_text("{}")
    code = CustomCode(
        Code(model_type="my", config=classes[0], model=classes[1]), tuple(CodeFile(name, b"") for name in files)
    )
    with pytest.raises(SourceError, match=wanted):
        write_auto_map(tmp_path, code)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
