"""One model's server through its life: started once, watched, started again after a crash, given up for a while."""

import asyncio
import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime

import httpx2
import pytest

from cogsmith.client.cog_server import Prediction
from cogsmith.errors import ServeError
from cogsmith.gateway import worker as worker_module
from cogsmith.gateway.models import ServedModel, describe
from cogsmith.gateway.worker import Worker
from cogsmith.manifest import MODEL_ARGS, Manifest

from ..e2e.conftest import build_tiny

pytestmark = pytest.mark.slow

ECHO = """
import os
import sys
import time

import cog


class Predictor(cog.BaseRunner):
    def setup(self) -> None:
        print("the model loads", file=sys.stderr, flush=True)
        time.sleep({seconds})
        if not os.path.exists("weights"):
            raise RuntimeError("there are no weights")

    def run(self, x: int) -> int:
        return x
"""


def model_of(folder, name="echo"):
    return ServedModel(name, folder, "0" * 64, datetime.now(UTC), 1, {}, "")


@pytest.fixture
def echo(tmp_path):
    """A work directory without any model, whose set-up looks for a file."""
    (tmp_path / "cog.yaml").write_text('run: "predict.py:Predictor"\n')
    (tmp_path / "model.json").write_bytes(Manifest(name="echo", source="s", cogsmith="0", concurrency=1).to_json())
    (tmp_path / "predict.py").write_text(ECHO.format(seconds=0))
    (tmp_path / "weights").touch()
    return tmp_path


BEFORE = set()


@pytest.fixture(autouse=True)
def know_what_ran_before(tiny):
    """Servers of other tests' fixtures may live in this process too."""
    BEFORE.clear()
    BEFORE.update(children(os.getpid()))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_tiny(tmp_path_factory.mktemp("tiny"))[1]


def live(worker, story):
    """Run `story(worker)`, and stop the worker whatever happens; nothing that was started is left."""

    async def body():
        try:
            async with asyncio.timeout(120):
                return await story(worker)
        finally:
            await worker.stop()
            assert worker.state == "stopped"

    result = asyncio.run(body())
    assert servers() == []
    return result


def children(pid):
    """Ids of a process's living children."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,stat=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=3) for line in listed.splitlines()]
    return [
        int(child) for child, parent, state, name in rows if int(parent) == pid and state[0] != "Z" and name != "ps"
    ]


def servers():
    """Ids of the Cog servers that the test has started: children of this process that were not there before it."""
    return [child for child in children(os.getpid()) if child not in BEFORE]


def server_process():
    """The one Cog server that the test has started."""
    (server,) = servers()
    return server


async def until(condition, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def test_callers_who_ask_at_once_share_one_start(echo):
    said = []

    async def story(worker):
        assert worker.state == "stopped"
        urls = await asyncio.gather(*(worker.ready() for _ in range(8)))
        assert worker.state == "ready"
        assert len(servers()) == 1
        assert httpx2.get(f"{urls[0]}/health-check", trust_env=False).json()["status"] == "READY"
        return [*urls, await worker.ready()]

    assert len(set(live(Worker(model_of(echo), report=said.append), story))) == 1
    assert said[0] == "echo: starting"
    assert said[-1].startswith("echo: ready after ")


def test_the_last_line_of_a_long_setup_is_shown(echo):
    (echo / "predict.py").write_text(ECHO.format(seconds=2))
    said = []
    live(Worker(model_of(echo), report=said.append), lambda worker: worker.ready())
    assert "echo: the model loads" in said


def test_a_caller_who_gives_up_does_not_stop_the_start(echo):
    async def story(worker):
        impatient = asyncio.create_task(worker.ready())
        patient = asyncio.create_task(worker.ready())
        await asyncio.sleep(0.1)
        impatient.cancel()
        await patient
        assert impatient.cancelled()

    live(Worker(model_of(echo)), story)


def test_what_stands_against_setup_is_told_to_all_and_then_tried_again(echo):
    (echo / "weights").unlink()

    async def story(worker):
        failures = await asyncio.gather(*(worker.ready() for _ in range(3)), return_exceptions=True)
        assert worker.state == "failed"
        assert servers() == []
        (echo / "weights").touch()
        await worker.ready()
        return failures

    failures = live(Worker(model_of(echo)), story)
    assert all(isinstance(failure, ServeError) for failure in failures)
    assert all("there are no weights" in str(failure) for failure in failures)


def test_after_two_failures_it_is_left_alone_for_a_while(echo):
    (echo / "weights").unlink()

    async def story(worker):
        for _ in range(2):
            with pytest.raises(ServeError):
                await worker.ready()
        started = time.monotonic()
        with pytest.raises(ServeError, match=r"(?s)no weights.*tried 2 times; the next try is in \d+ s"):
            await worker.ready()
        assert time.monotonic() - started < 0.2
        (echo / "weights").touch()
        await asyncio.sleep(2.1)
        await worker.ready()

    live(Worker(model_of(echo)), story)


def test_a_stop_during_the_start_leaves_nothing(echo):
    (echo / "predict.py").write_text(ECHO.format(seconds=60))

    async def story(worker):
        waiting = asyncio.create_task(worker.ready())
        await until(servers)
        await asyncio.sleep(0.5)
        await worker.stop()
        with pytest.raises(ServeError, match="was stopped while it started"):
            await waiting

    live(Worker(model_of(echo)), story)


def test_a_folder_that_cannot_be_served_is_an_error_of_the_same_kind(tmp_path):
    with pytest.raises(ServeError, match=r"has no cog\.yaml"):
        live(Worker(model_of(tmp_path)), lambda worker: worker.ready())


def test_suspicion_of_a_sound_server_changes_nothing(echo):
    async def story(worker):
        await worker.suspect()
        url = await worker.ready()
        await asyncio.gather(*(worker.suspect() for _ in range(5)))
        assert (worker.state, await worker.ready()) == ("ready", url)

    live(Worker(model_of(echo)), story)


@pytest.mark.parametrize("victim", ["server", "worker"])
def test_a_crash_is_noticed_while_nobody_asks_and_the_model_started_again(echo, victim):
    said = []

    async def story(worker):
        await worker.ready()
        server = server_process()
        kill(server, victim)
        await until(lambda: worker.state == "ready" and server_process() != server if servers() else False)

    live(Worker(model_of(echo), report=said.append), story)
    assert said.count("echo: the model has crashed") == 1
    assert said.count("echo: starting") == 2


def kill(server, victim):
    """Kill Cog's server, or the worker process in which it runs the model."""
    (child,) = children(server)
    os.kill(server if victim == "server" else child, signal.SIGKILL)


GENERATE = {"ops_batch_json": json.dumps([["GENERATE", {"prompt": [1, 2, 3], "stream_id": 1, "max_tokens": 40}]])}


def test_after_a_crash_under_a_caller_the_tokens_are_the_same(tiny, monkeypatch):
    monkeypatch.setattr(worker_module, "_WATCH_SECONDS", 1000)

    async def story(worker):
        urls = [await worker.ready()]
        before = await asyncio.to_thread(tokens, urls[0])
        for victim in ("worker", "server"):
            kill(server_process(), victim)
            await asyncio.gather(*(worker.suspect() for _ in range(5)))
            assert worker.state == "stopped"
            urls.append(await worker.ready())
            assert await asyncio.to_thread(tokens, urls[-1]) == before
        assert len(set(urls)) == 3

    live(Worker(describe(tiny)), story)


def tokens(url):
    lines = "".join(Prediction(url, GENERATE).chunks()).splitlines()
    return [json.loads(line.removeprefix("TOKEN "))["token"] for line in lines]


def test_arguments_for_the_model_come_through_the_environment(tiny):
    async def story(worker):
        url = await worker.ready()
        question = {"ops_batch_json": '[["MODEL_INFO", {"stream_id": 1}]]'}
        (line,) = await asyncio.to_thread(lambda: list(Prediction(url, question).chunks()))
        return json.loads(line.removeprefix("MSG "))["model_info"]

    info = live(Worker(describe(tiny), variables={MODEL_ARGS: '{"dtype": "float64"}'}), story)
    assert info["dtype"] == "float64"


def test_arguments_that_are_no_object_are_refused_with_the_fix(tiny):
    with pytest.raises(ServeError, match=MODEL_ARGS):
        live(Worker(describe(tiny), variables={MODEL_ARGS: "[1]"}), lambda worker: worker.ready())
