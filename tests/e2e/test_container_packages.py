"""A container has the packages of its requirements.txt and no others. Here more are installed, and hidden."""

import sys
from importlib import metadata

import pytest
import transformers
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cogsmith import config
from cogsmith.client.cog_server import Prediction
from cogsmith.gateway import cog_process
from cogsmith.sources.silent import Silent
from cogsmith.workdir.build import build

from ..engine import encoders, vision
from ..engine.models import byte_tokenizer, tiny_llama
from ..hidden import hide

pytestmark = pytest.mark.slow

CONFIG = """
[models.tiny]
source = "./checkpoint"
task = "{task}"
cog.gpu = false
"""


def text(folder):
    tiny_llama(vocab_size=256).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def encoder(folder):
    encoders.save(transformers.BertConfig(**encoders.BERT | {"vocab_size": 256}), folder)
    byte_tokenizer().save_pretrained(folder)


@pytest.mark.parametrize(
    ("task", "save", "inputs", "hides"),
    [
        ("causal-lm", text, {"prompt": "Hello", "regex": "[a-z]{3}"}, {"PIL", "gguf", "bitsandbytes"}),
        ("encoder", encoder, {"texts": ["Hello"]}, {"PIL", "gguf"}),
        ("image-text", vision.save, {"prompt": "Hello", "max_new_tokens": 4}, {"gguf", "bitsandbytes"}),
    ],
)
def test_a_model_needs_no_package_that_its_container_lacks(task, save, inputs, hides, tmp_path, monkeypatch):
    save(tmp_path / "checkpoint")
    (tmp_path / "config.toml").write_text(CONFIG.format(task=task))
    (built,) = build(config.load(tmp_path / "config.toml"), reporter=Silent(), cache=tmp_path / "cache")
    hidden = modules_outside((built.folder / "requirements.txt").read_text().splitlines())
    assert hidden >= hides
    monkeypatch.setenv("PYTHONPATH", hide(hidden, tmp_path / "hidden"))
    with cog_process.running(built.folder) as server:
        assert "".join(Prediction(server.url, inputs).chunks())


def modules_outside(requirements):
    """The top modules of installed distributions that neither `requirements` nor Cog bring."""
    brought = closure([*requirements, "cog", "coglet", "pip", "setuptools"])
    owners = metadata.packages_distributions()
    return {
        module
        for module, names in owners.items()
        if not {canonicalize_name(name) for name in names} & brought
        and module != "cogsmith"
        and module not in sys.stdlib_module_names
    }


def closure(lines):
    """The names of what `lines` require, and what those require, and so on."""
    found, waiting = set(), [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        try:
            needs = [Requirement(line) for line in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        extras = requirement.extras or {""}
        waiting += [
            need
            for need in needs
            if canonicalize_name(need.name) not in found
            and (need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras))
        ]
    return found
