"""A work directory of a tiny random model, built by the real build and served by the real Cog runtime."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cogsmith import config
from cogsmith.gateway import cog_process
from cogsmith.sources.silent import Silent
from cogsmith.workdir.build import build

from ..engine.models import tiny_llama

CONFIG = """
[models.tiny]
source = "./checkpoint"
cog.gpu = false
limits.timeout_seconds = {seconds}
limits.max_batch_size = 8
cog.concurrency = {concurrency}
"""


def byte_tokenizer():
    """One token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    byte_level.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=byte_level)


def build_tiny(root, *, concurrency=16, seconds=120):
    """Build a work directory under `root`, with `seconds` for each prediction; return the model and the folder."""
    model = tiny_llama(vocab_size=256, max_position_embeddings=8192)
    model.save_pretrained(root / "checkpoint")
    byte_tokenizer().save_pretrained(root / "checkpoint")
    (root / "config.toml").write_text(CONFIG.format(concurrency=concurrency, seconds=seconds))
    (built,) = build(config.load(root / "config.toml"), reporter=Silent(), cache=root / "cache")
    return model, built.folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The plain model and its work directory."""
    return build_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def served(tiny):
    """The plain model and the URL of the Cog server that serves it."""
    model, folder = tiny
    with cog_process.running(folder) as server:
        yield model, server.url


@pytest.fixture(scope="session")
def served_briefly(tmp_path_factory):
    """The URL of a server that ends each prediction after two seconds."""
    _, folder = build_tiny(tmp_path_factory.mktemp("brief"), seconds=2)
    with cog_process.running(folder) as server:
        yield server.url


@pytest.fixture(scope="session")
def served_singly(tmp_path_factory):
    """The plain model and the URL of a server with the conservative predictor: one prediction at a time."""
    model, folder = build_tiny(tmp_path_factory.mktemp("single"), concurrency=1)
    with cog_process.running(folder) as server:
        yield model, server.url
