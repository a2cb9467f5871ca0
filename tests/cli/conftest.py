"""Running the command line as a user does: another process, in a folder of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cogsmith.gateway import cog_process

from ..e2e.conftest import build_tiny
from ..e2e.plain import PlainModel
from ..hidden import hide

CONFIG_JSON = """{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 64, "hidden_size": 16,
"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}"""


class Project:
    """A user's folder with a config.toml and a local checkpoint."""

    def __init__(self, root, environment):
        self.root = root
        self.environment = environment

    def write(self, name, text):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def run(self, *arguments, **settings):
        return self.run_python("-m", "cogsmith.cli.main", *arguments, **settings)

    def run_python(self, *arguments, **settings):
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=self.environment,
            text=True,
            timeout=120,
            check=False,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings},
        )


@pytest.fixture
def bare_project(project_with_engine, tmp_path):
    """A project without the engine's packages, as after `./build`: what only packages models must not need them."""
    project_with_engine.environment["PYTHONPATH"] = hide(("torch", "transformers"), tmp_path / "hidden")
    return project_with_engine


@pytest.fixture
def project(project_with_engine):
    """A project whose one model, `tiny`, is a checkpoint folder beside its config."""
    return project_with_engine


@pytest.fixture
def project_with_engine(tmp_path):
    """The same, also where a file of tests has its projects without the engine's packages."""
    root = tmp_path / "project"
    (root / "checkpoint").mkdir(parents=True)
    (root / "checkpoint" / "config.json").write_text(CONFIG_JSON)
    save_file({"model.embed_tokens.weight": torch.zeros(64, 16)}, root / "checkpoint" / "model.safetensors")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "COG_"))},
        "COGSMITH_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "NO_COLOR": "1",
    }
    made = Project(root, environment)
    made.write("config.toml", '[models.tiny]\nsource = "./checkpoint"\n')
    return made


CHAT_TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"


@dataclass(frozen=True)
class TinyServer:
    """A user's folder with a built work directory `tiny`, the Cog server over it, and its truth."""

    root: Path
    url: str
    plain: PlainModel

    def run(self, *arguments, **settings):
        """Run the command line in the user's folder."""
        command = [sys.executable, "-m", "cogsmith.cli.main", *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REPLICATE_")}
        environment |= {"COGSMITH_CACHE": str(self.root / "cache"), "NO_COLOR": "1", **settings.pop("env", {})}
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, timeout=120, check=False, **settings
        )

    def run_json(self, *arguments):
        """Run a command that must succeed; return what it prints, read as JSON."""
        result = self.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr.decode()
        return json.loads(result.stdout)


@pytest.fixture(scope="session")
def tiny_server(tmp_path_factory):
    """A tiny random model with a chat template, under the real Cog runtime."""
    root = tmp_path_factory.mktemp("tiny-server")
    _, folder = build_tiny(root)
    (folder / "checkpoints/chat_template.jinja").write_text(CHAT_TEMPLATE)
    with cog_process.running(folder) as server:
        yield TinyServer(root, server.url, PlainModel(folder / "checkpoints"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The plain model and the folder that holds its config and work directory."""
    root = tmp_path_factory.mktemp("built")
    model, _ = build_tiny(root)
    return model, root
