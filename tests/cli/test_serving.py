"""The commands that run a model, on a tiny random one under the real Cog runtime."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx2
import pytest

from ..e2e.conftest import build_tiny

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cog-server")]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The plain model and the folder that holds its config and work directory."""
    root = tmp_path_factory.mktemp("built")
    model, _ = build_tiny(root)
    return model, root


def cogsmith(root, *arguments, **settings):
    command = [sys.executable, "-m", "cogsmith.cli.main", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False, **settings)


def test_predict_prints_text_on_stdout_and_metrics_on_stderr(built):
    _, root = built
    result = cogsmith(root, "predict", "tiny", "--prompt", "Hello", "--max-tokens", "5")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    assert "5 tokens in, 5 out, the first after" in result.stderr


def test_predict_takes_an_lmtp_batch_from_stdin(built):
    _, root = built
    batch = [["SCORE", {"prompt": [1, 2], "scored": [3, 4], "stream_id": 7}]]
    inputs = json.dumps({"ops_batch_json": json.dumps(batch)})
    result = cogsmith(root, "predict", "tiny", "--json", "-", input=inputs)
    assert result.returncode == 0, result.stderr
    payloads = [json.loads(line.split(" ", 1)[1]) for line in result.stdout.split("\n") if line]
    assert [payload["token"] for payload in payloads] == [3, 4]


def test_predict_ends_well_when_its_reader_has_enough(built):
    _, root = built
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cogsmith.cli.main", "predict", "tiny", "--prompt", "Hello"]
    with open(write, "wb") as closed:
        result = subprocess.run(command, cwd=root, stdout=closed, stderr=subprocess.PIPE, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_predict_says_why_a_prediction_failed(built):
    _, root = built
    result = cogsmith(root, "predict", "tiny", "--json", "-", input='{"messages": [{"role": "user", "content": "x"}]}')
    assert result.returncode == 1
    assert "no chat template" in result.stderr


def test_inspect_agrees_with_the_loaded_model(built):
    model, root = built
    facts = json.loads(cogsmith(root, "inspect", "tiny", "--json").stdout)
    assert facts["n_params"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["footprint_bytes"] == model.get_memory_footprint()
    assert facts["layers"] == model.config.num_hidden_layers
    assert "tree" not in facts
    assert json.loads(cogsmith(root, "inspect", "tiny", "--json", "--tree").stdout)["tree"] == str(model)
    text = cogsmith(root, "inspect", "tiny", "--tree").stdout
    assert f"Memory footprint: {model.get_memory_footprint() / 1e6:,.1f} MB" in text
    assert str(model) in text


def processes_of(group):
    """Ids of the living processes in a process group's session."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, pgid, stat in rows if int(pgid) in group and not stat.startswith("Z")]


def start_serving(root):
    """The process and the URL of a server on a free port."""
    server = subprocess.Popen(
        [sys.executable, "-m", "cogsmith.cli.main", "serve", "tiny", "--port", "0"],
        cwd=root,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in server.stderr:
        if found := re.search(r"is ready on (http://\S+);", line):
            return server, found.group(1)
    raise AssertionError("the server did not get ready")


def cog_group(server):
    """Process groups of what `serve` started: Cog's server leads one, its worker belongs to it."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    return {pid for pid, parent in pairs if parent == server.pid}


def wait_until_gone(group):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if not processes_of(group):
            return
        time.sleep(0.1)
    raise AssertionError(f"left behind: {processes_of(group)}")


def test_serve_answers_and_a_sigterm_ends_it_and_all_it_started(built):
    _, root = built
    server, url = start_serving(root)
    group = cog_group(server)
    answer = httpx2.post(f"{url}/predictions", json={"input": {"prompt": "Hi"}}, timeout=30).json()
    assert answer["status"] == "succeeded"
    server.send_signal(signal.SIGTERM)
    server.stderr.read()
    assert server.wait(20) == 0
    wait_until_gone(group)


def test_a_killed_serve_leaves_no_server_behind(built):
    _, root = built
    server, _ = start_serving(root)
    group = cog_group(server)
    assert processes_of(group)
    os.kill(server.pid, signal.SIGKILL)
    server.wait(10)
    wait_until_gone(group)


def test_a_taken_port_is_said_before_the_model_loads(built):
    _, root = built
    server, url = start_serving(root)
    port = url.rpartition(":")[2]
    try:
        result = cogsmith(root, "serve", "tiny", "--port", port)
        assert result.returncode == 1
        assert f"port {port}" in result.stderr
    finally:
        server.terminate()
        server.stderr.read()
        server.wait(20)
