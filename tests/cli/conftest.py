"""Running the command line as a user does: another process, in a folder of its own."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

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
def project(tmp_path):
    """A project whose one model, `tiny`, is a checkpoint folder beside its config."""
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
