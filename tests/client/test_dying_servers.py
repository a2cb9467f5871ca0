"""Models in this process, and servers that die, over the real Cog runtime."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest

from cogsmith.errors import (
    ClientError,
    ServiceUnavailable,
    StreamBroken,
)
from cogsmith.gateway import cog_process

from ..e2e import gateway as gateways
from ..engine.models import plain_logprobs
from .real_calls import call, greedy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("client-servers"),
    pytest.mark.usefixtures("environment"),
]


def test_a_checkpoint_folder_in_this_process(tiny):
    model, folder = tiny
    result = call(
        f"local:{folder / 'checkpoints'}", lambda client: client.generate([1], max_tokens=5).result(), dtype="float32"
    )
    assert result.ids == greedy(model, [1], 5)[0]


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ClientError, match=tmp_path.name):
        call(f"local:{tmp_path}", lambda client: client.model_info())


def children(pid):
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, timeout=10)
    return [int(child) for child in listed.stdout.split()]


def test_a_cog_server_that_dies(tiny):
    """Nothing starts it again, so the caller is told, and of how many tokens."""
    _, folder = tiny

    async def work(client):
        stream = client.generate([1], max_tokens=7000)
        await anext(stream)
        await asyncio.to_thread(server.stop)
        with pytest.raises((StreamBroken, ServiceUnavailable)):
            await stream.result()
        return stream.usage.tokens

    with cog_process.running(folder) as server:
        assert call(server.url, work) > 0


@pytest.mark.parametrize("kind", ["replicate", "websocket"])
def test_a_killed_worker_loses_no_token(tiny, tmp_path, monkeypatch, kind):
    """The gateway starts the model again; the calls go on in it."""
    model, folder = tiny

    async def work(client):
        streams = [client.generate([i, 7], max_tokens=400) for i in range(6)]
        for stream in streams:
            await anext(stream)
        (cog,) = children(running.process.pid)
        os.kill(children(cog)[0], signal.SIGKILL)
        return [(await stream.result()).ids for stream in streams]

    with gateways.running(folder, log=tmp_path / "log") as running:
        monkeypatch.setenv("REPLICATE_BASE_URL", running.url)
        place = "replicate:me/tiny" if kind == "replicate" else running.url.removeprefix("http://")
        for first, ids in enumerate(call(place, work)):
            plain = plain_logprobs(model, [first, 7, *ids])
            assert list(ids) == plain[1:-1].argmax(-1).tolist()
            assert len(ids) == 400
