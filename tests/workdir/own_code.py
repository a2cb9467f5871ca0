"""A project whose model brings its own Python files, and what tests ask of it."""

import json
from contextlib import contextmanager

import pytest

from cogsmith import config
from cogsmith.errors import ProblemsError
from cogsmith.workdir import lock
from cogsmith.workdir.build import build, preview

CONFIGURATION = """
from transformers import PreTrainedConfig


class MyConfig(PreTrainedConfig):
    model_type = "my_gpt"
"""
MODELING = """
import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_x import MyConfig


class MyForCausalLM(PreTrainedModel):
    config_class = MyConfig
"""
TRAP = '\nopen("{mark}", "w").write("somebody ran this")\n'
FILES = {"configuration_x.py": CONFIGURATION, "modeling_x.py": MODELING}
CLASSES = {
    "model_type": "my_gpt",
    "config": "configuration_x.MyConfig",
    "model": "modeling_x.MyForCausalLM",
}


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.notes = []

    @contextmanager
    def task(self, label, total=None, *, unit="bytes"):
        yield self

    def advance(self, amount):
        pass

    def note(self, text):
        self.notes.append(text)


class Shop:
    """A project with one model whose checkpoint and code lie beside config.toml."""

    def __init__(self, root, safetensors):
        self.root = root
        self.checkpoint = root / "checkpoint"
        self.code = root / "code"
        self.mark = root / "mark"
        self.lines = ["cog.gpu = false", 'source = "./checkpoint"']
        self.keys = {"path": "./code", **CLASSES}
        self.reporter = Notes()
        self.write(self.checkpoint, {"config.json": json.dumps({"model_type": "my_gpt"})})
        (self.checkpoint / "model.safetensors").write_bytes(safetensors(a=3, b=5))
        self.write(self.code, {name: text + TRAP.format(mark=self.mark) for name, text in FILES.items()})

    def write(self, folder, files):
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)

    def load(self):
        keys = [f"code.{key} = {json.dumps(value)}" for key, value in self.keys.items()]
        text = "\n".join(["[models.m]", *self.lines, *keys, ""])
        (self.root / "config.toml").write_text(text)
        return config.load(self.root / "config.toml")

    def build(self, **options):
        (built,) = build(self.load(), reporter=self.reporter, cache=self.root / "cache", **options)
        assert not self.mark.exists(), "the build ran the model's code"
        return built

    def plan(self):
        (plan,) = preview(self.load(), cache=self.root / "cache")
        return plan

    def refusal(self, kind=ProblemsError):
        with pytest.raises(kind) as error:
            self.build()
        assert not (self.root / "work/m").exists()
        assert not self.mark.exists()
        return str(error.value)

    @property
    def folder(self):
        return self.root / "work/m"

    @property
    def taken(self):
        place = self.folder / "model_code"
        return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}

    @property
    def entry(self):
        return lock.read(self.root / "cogsmith.lock")["m"]
