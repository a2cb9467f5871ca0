"""The rendered folder under the real Cog: its inspector, and its HTTP server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cogsmith.config.model import CogSettings
from cogsmith.workdir import signature

pytestmark = pytest.mark.slow

INSPECT = """
import json
from cog._inspector import create_predictor
info = create_predictor("predict", "Predictor")
print(json.dumps({
    "inputs": {name: [item.default, item.ge, item.le] for name, item in info.inputs.items()},
    "output": info.output.kind.name,
    "cogsmith": __import__("cogsmith").__file__,
}))
"""

# Stands for the engine: says what it was given, in two chunks.
ECHO = """
import json
import cog

class LanguageModel(cog.BaseRunner):
    def stream(self, **inputs):
        yield json.dumps(inputs)
        yield "."
"""


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COG_"))}
    tools = str(Path(sys.executable).parent)
    return kept | {"PATH": f"{tools}:{kept['PATH']}", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(params=[1, 32])
def folder(request, workshop) -> Path:
    workshop.add("tiny", cog=CogSettings(concurrency=request.param))
    workshop.build()
    return workshop.folder("tiny")


def test_inspector_agrees_with_our_reading(folder: Path):
    done = subprocess.run(
        [sys.executable, "-c", INSPECT], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    run = signature.read((folder / "predict.py").read_text())
    assert found["inputs"] == {
        item.name: [item.default, item.keywords.get("minimum"), item.keywords.get("maximum")] for item in run.inputs
    }
    assert found["output"] == "CONCAT_ITERATOR"
    assert Path(found["cogsmith"]).is_relative_to(folder)


@pytest.mark.parametrize("concurrency", [1, 32])
def test_inspector_agrees_with_our_reading_of_an_encoder(workshop, concurrency):
    workshop.add("encoder", task="encoder", cog=CogSettings(concurrency=concurrency))
    workshop.build()
    test_inspector_agrees_with_our_reading(workshop.folder("encoder"))


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serve the folder as an image would; yields the address."""
    run = signature.read((folder / "predict.py").read_text())
    settings = {
        "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
        "COG_MAX_CONCURRENCY": str(run.concurrency),
        "PORT": "0",
        "LOG_FORMAT": "console",
    }
    log = folder.parent / "server.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
            cwd=folder,
            env=environment() | settings,
            stdout=sink,
            stderr=sink,
        )
    try:
        yield wait_until_ready(log)
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_until_ready(log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        match = re.search(r"127\.0\.0\.1:(\d+)", log.read_text())
        if match and match[1] != "0":
            address = f"http://127.0.0.1:{match[1]}"
            with urllib.request.urlopen(f"{address}/health-check", timeout=5) as answer:
                if json.load(answer)["status"] == "READY":
                    return address
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def predict(address: str, inputs: dict, accept: str = "application/json") -> str:
    request = urllib.request.Request(
        f"{address}/predictions",
        json.dumps({"input": inputs}).encode(),
        {"Content-Type": "application/json", "Accept": accept},
    )
    for _ in range(50):
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            # Cog frees a slot a moment after it has answered.
            if error.code != 409:
                raise
            time.sleep(0.02)
    raise AssertionError("the server stays busy")


def test_server_takes_the_schema_and_every_input(folder: Path):
    (folder / "cogsmith/predictor/runner.py").write_text(ECHO)
    defaults = {item.name: item.default for item in signature.read((folder / "predict.py").read_text()).inputs}
    chat = [{"role": "user", "content": "hello"}]
    with server(folder) as address:
        answer = json.loads(predict(address, {}))
        assert json.loads(answer["output"][0]) == defaults
        answer = json.loads(predict(address, {"messages": chat, "top_p": 0.5, "seed": 3}))
        assert json.loads(answer["output"][0]) == defaults | {"messages": chat, "top_p": 0.5, "seed": 3}
        assert answer["output"][1] == "."
        events = predict(address, {"prompt": "a"}, accept="text/event-stream")
        assert events.count("event: output") == 2
        assert '"status":"succeeded"' in events
        for wrong in ({"top_p": 2}, {"max_tokens": 0}, {"prompt": 5}, {"messages": "hello"}):
            with pytest.raises(urllib.error.HTTPError, match="422"):
                predict(address, wrong)
