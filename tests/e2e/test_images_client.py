"""Images from the client and the command line to a tiny LLaVA: over the real Cog runtime, and in this process."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest

from cogsmith.client import connect
from cogsmith.errors import EndpointError, RequestRejected, UnsupportedByServer

from ..engine.vision import picture
from .conftest import DEMO_TOKEN
from .llava import NEW, truth
from .test_images import served  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("llava")]


@pytest.fixture
def file(tmp_path):
    picture().save(tmp_path / "one.png")
    return tmp_path / "one.png"


@pytest.fixture(params=["http", "local", "replicate"])
def connected(request, served, llava):  # noqa: F811
    """What connects to the model, by each way that takes images."""
    if request.param == "replicate":
        demo = request.getfixturevalue("demo")
        return partial(connect, "replicate:org/llava", token=DEMO_TOKEN, base_url=demo.url)
    return partial(connect, served[1] if request.param == "http" else f"local:{llava[1]}")


def test_the_client_sends_images(served, connected, file):  # noqa: F811
    model, _ = served
    tokens, logprobs = truth(model, "<image>\nWhat is it?", picture())
    count = tokens.index(256) + 1 if 256 in tokens else NEW
    with connected(images=[file]) as client:
        made = client.generate("What is it?", max_tokens=NEW).result()
        assert made.branches[0].ids == tuple(tokens[:count])
        expected = [row[token].item() for row, token in zip(logprobs, tokens[:count], strict=False)]
        assert [token.logprob for token in made.branches[0].tokens] == pytest.approx(expected, abs=1e-4)
        (scored,) = client.score("<image>\nWhat is it?", [tokens])
        assert scored.logprob == pytest.approx(
            sum(row[token].item() for row, token in zip(logprobs, tokens, strict=True)), abs=1e-3
        )


def test_what_takes_no_images_says_so(file, tmp_path):
    with pytest.raises(EndpointError, match="LMTP itself has no place for them"):
        connect("ws://localhost:1", images=[file])
    with pytest.raises(RequestRejected, match=r"nowhere\.png cannot be read"):
        connect("http://localhost:1", images=[tmp_path / "nowhere.png"])


def test_a_model_of_texts_is_sent_none(tiny, file):
    with connect(f"local:{tiny[1]}", images=[file]) as client, pytest.raises(UnsupportedByServer, match="reads none"):
        client.generate("a", max_tokens=1).result()


def test_the_command_line_sends_images(served, file, tmp_path):  # noqa: F811
    model, url = served
    tokens, _ = truth(model, "<image>\nWhat is it?", picture())
    count = tokens.index(256) + 1 if 256 in tokens else NEW
    options = ["--image", str(file), "--max-tokens", str(NEW), "--temperature", "0", "--json"]
    ran = subprocess.run(
        [sys.executable, "-m", "cogsmith.cli.main", "generate", url, "--prompts", "What is it?", *options],
        env={**os.environ, "COGSMITH_CACHE": str(tmp_path), "NO_COLOR": "1"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    (row,) = json.loads(ran.stdout)["generations"]
    assert row["ids"] == tokens[:count]
