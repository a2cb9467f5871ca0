"""What is wrong with a model's own Python files, or with the keys that name them: said before anything is fetched."""

import re
import shutil

import pytest

from cogsmith.errors import ConfigError, SourceError, UserError


@pytest.mark.parametrize(
    ("file", "old", "new", "wanted"),
    [
        ("modeling_x.py", "class MyFor", "class My For", r"line 9: modeling_x.py: not valid Python 3.11"),
        ("modeling_x.py", "import torch\n", "match = [x for x in]\n", r"line 2: modeling_x.py: not valid Python"),
        ("modeling_x.py", "MyForCausalLM", "Other", r"code.model: modeling_x.py has no class MyForCausalLM"),
        (
            "configuration_x.py",
            "class MyConfig",
            "if True:\n  pass\nclass Config",
            r"code.config: configuration_x.py has no",
        ),
        ("modeling_x.py", ".configuration_x", ".gone", r"line 6: modeling_x.py: `from .gone import` names gone.py"),
        ("modeling_x.py", ".configuration_x", "..up", r"line 6: modeling_x.py: `from ..up import` leaves the folder"),
        (
            "modeling_x.py",
            "from .configuration_x import",
            "from . import nothing,",
            r"`from . import nothing` names a mod",
        ),
        (
            "modeling_x.py",
            "import torch\n",
            "import wandb\n",
            r'line 2: modeling_x.py: imports wandb(.|\n)*"wandb==VERSION"',
        ),
        ("modeling_x.py", "import torch\n", "import cv2.dnn\n", r'imports cv2(.|\n)*"opencv-python==VERSION"'),
        ("modeling_x.py", "from .conf", "from conf", r"imports configuration_x(.|\n)*from .configuration_x import"),
        ("configuration_x.py", '"my_gpt"', '"gpt"', r"model_type = 'gpt' \(line 6\), not 'my_gpt'"),
        ("modeling_x.py", "\nimport torch", "# coding: latin-1\nimport torch", r"is iso-8859-1, not UTF-8"),
        ("../checkpoint/config.json", "my_gpt", "gpt2", r"config.json of the weights has model_type 'gpt2'"),
    ],
)
def test_what_is_wrong_in_the_files(shop, file, old, new, wanted):
    path = shop.code / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert re.search(wanted, shop.refusal())


def test_a_file_that_is_no_text(shop):
    (shop.code / "modeling_x.py").write_bytes(b"x = 1\ny = '\xff'\n")
    assert "line 2: modeling_x.py: the text is not UTF-8" in shop.refusal()


def test_everything_that_is_wrong_is_said_at_once(shop):
    shop.write(shop.code, {"modeling_x.py": "import wandb\nfrom .gone import x\n", "other.py": "("})
    text = shop.refusal()
    for part in ("other.py: not valid", "`from .gone import`", "has no class MyForCausalLM"):
        assert part in text


def test_the_container_s_python_counts(shop):
    with (shop.code / "modeling_x.py").open("a") as file:
        file.write("try:\n    pass\nexcept* ValueError:\n    pass\n")
    shop.build()
    shutil.rmtree(shop.folder)
    shop.lines += ['cog.python = "3.10"', "cog.concurrency = 1"]
    assert "not valid Python 3.10" in shop.refusal()


@pytest.mark.parametrize(
    "text",
    [
        "from __future__ import annotations\nimport einops\n",
        "try:\n    import wandb\nexcept ImportError:\n    wandb = None\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .gone import x\n    import wandb\n",
        "import yaml, numpy as np\nfrom huggingface_hub.utils import tqdm\n",
    ],
)
def test_imports_that_will_do(shop, text):
    shop.lines.append('requirements = ["einops==0.8.1"]')
    modeling = shop.code / "modeling_x.py"
    modeling.write_text(text + modeling.read_text())
    shop.build()
    assert shop.reporter.notes == []


def test_an_import_that_only_some_calls_reach_is_a_note(shop):
    with (shop.code / "modeling_x.py").open("a") as file:
        file.write("def late():\n    import wandb\n")
    shop.build()
    (note,) = shop.reporter.notes
    assert "m: modeling_x.py, line 14 imports wandb" in note


def test_a_requirement_may_bring_what_its_name_does_not_say(shop):
    shop.lines.append('requirements = ["pyfancy==1.0"]')
    modeling = shop.code / "modeling_x.py"
    modeling.write_text("import fancy\n" + modeling.read_text())
    shop.build()
    (note,) = shop.reporter.notes
    assert "imports fancy" in note


def test_a_file_that_no_class_needs_may_import_what_it_likes(shop):
    shop.write(shop.code, {"train.py": "import wandb\nfrom ..elsewhere import x\n"})
    shop.build()
    assert "train.py" in shop.taken


def test_classes_from_siblings(shop):
    shop.write(shop.code, {"all.py": "from .configuration_x import *\nfrom .modeling_x import MyForCausalLM as Mine\n"})
    shop.keys |= {"config": "all.MyConfig", "model": "all.Mine"}
    shop.build()


def test_links(shop):
    (shop.code / "inside.py").symlink_to("modeling_x.py")
    shop.build()
    assert shop.taken["inside.py"] == shop.taken["modeling_x.py"]
    assert not (shop.folder / "model_code/inside.py").is_symlink()
    shutil.rmtree(shop.folder)
    shop.write(shop.root, {"secret.py": "x = 1\n"})
    (shop.code / "outside.py").symlink_to("../secret.py")
    assert "outside.py is outside the folder" in shop.refusal(SourceError)
    (shop.code / "outside.py").unlink()
    (shop.code / "nowhere.py").symlink_to("gone.py")
    assert "nowhere.py is no Python file" in shop.refusal(SourceError)


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"path": "./gone"}, r"gone.* does not exist"),
        ({"path": "./checkpoint"}, r"holds no Python files"),
        ({"path": "./checkpoint/config.json"}, r"config.json is no Python file"),
        (
            {"files": ["nope.py", "../config.toml", "../checkpoint/config.json"]},
            r"nope.py is no(.|\n)*config.toml is no",
        ),
        ({"config": "gone.MyConfig"}, r"names no module of the files \(configuration_x.py, modeling_x.py\)"),
        ({"config": "MyConfig"}, r"'MyConfig' names no module"),
    ],
)
def test_keys_that_name_nothing(shop, keys, wanted):
    shop.keys |= keys
    assert re.search(wanted, shop.refusal(UserError))


@pytest.mark.parametrize(
    ("lines", "keys", "wanted"),
    [
        (['quant = { bits = 4, at = "build" }'], {}, r"not quantised at build(.|\n)*\"load\""),
        (['engine = "vllm"'], {}, "default engine only"),
        (['format = "gguf"'], {}, "needs no code"),
        ([], {"path": None}, r"code.path .* or code.files"),
        ([], {"model": None}, "code.model too"),
    ],
)
def test_keys_that_do_not_go_together(shop, lines, keys, wanted):
    shop.lines = [*shop.lines[1:], *lines]
    shop.keys = {key: value for key, value in (shop.keys | keys).items() if value is not None}
    assert re.search(wanted, shop.refusal(ConfigError))
