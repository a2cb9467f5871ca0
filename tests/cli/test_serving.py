"""`serve`, on a tiny random model under the real Cog runtime."""

import contextlib
import fcntl
import http.client
import json
import os
import pty
import queue
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import httpx2
import pytest
from websockets.sync.client import connect

import cogsmith as cogsmith_package

from .commands import cogsmith

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cog-server")]


@contextlib.contextmanager
def serving(root, *arguments, until="Ctrl-C ends", preexec_fn=None, **variables):
    """`cogsmith serve` on a free port, once it has said `until` to the file `log`: its process and its URL."""
    command = [sys.executable, "-m", "cogsmith.cli.main", "serve", *arguments, "--port", "0"]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=root, stderr=log, env={**os.environ, **variables}, preexec_fn=preexec_fn
        )
    try:
        wait_until(lambda: until in said(root) or process.poll() is not None, 60)
        assert process.poll() is None, said(root)
        yield process, re.search(r"listening on (http://\S+)", said(root))[1]
    finally:
        process.kill()
        process.wait()


def said(root):
    return (root / "log").read_text()


def wait_until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def started_by(pid):
    """Ids of all living processes below a process."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    children = [int(child) for child, parent, state in rows if int(parent) == pid and state[0] != "Z"]
    return [*children, *(process for child in children for process in started_by(child))]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def create(url, max_tokens=5):
    operation = ["GENERATE", {"prompt": [1, 2, 3], "stream_id": 1, "max_tokens": max_tokens}]
    body = {"input": {"ops_batch_json": json.dumps([operation])}}
    return httpx2.post(f"{url}/v1/models/local/tiny/predictions", json=body, timeout=30, trust_env=False)


def look(prediction):
    return httpx2.get(prediction["urls"]["get"], timeout=30, trust_env=False).json()


def wait_for_output(prediction):
    wait_until(lambda: look(prediction)["output"])


def model_info(url):
    with connect(url.replace("http", "ws", 1)) as socket:
        socket.send('MODEL_INFO {"stream_id": 1, "model": "any", "data": {}}')
        return json.loads(socket.recv(timeout=30).removeprefix("MSG "))[0]["model_info"]


def test_serve_says_how_it_is_reached_answers_and_ends_on_a_signal(built):
    _, root = built
    with serving(root, "tiny") as (process, url):
        prediction = create(url).json()
        wait_until(lambda: look(prediction)["status"] == "succeeded")
        assert model_info(url)["model"] == "tiny"
        processes = started_by(process.pid)
        assert len(processes) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        wait_until(lambda: not any(map(is_alive, processes)))
    for told in (f"REPLICATE_BASE_URL={url}", "replicate:local/tiny", url.replace("http", "ws"), "stopping"):
        assert told in said(root)
    assert re.search(r"127.0.0.1 POST /v1/models/local/tiny/predictions 201 \d+ ms", said(root))
    assert not Path("/tmp/coglet/predictions", prediction["id"]).exists()


def test_a_signal_lets_running_predictions_end_and_takes_no_new_ones(built):
    _, root = built
    with serving(root, "tiny") as (process, url):
        prediction = create(url, max_tokens=300).json()
        wait_for_output(prediction)
        with httpx2.stream("GET", prediction["urls"]["stream"], timeout=30, trust_env=False) as stream:
            process.send_signal(signal.SIGINT)
            wait_until(lambda: "stopping" in said(root))
            refused = create(url)
            text = stream.read().decode()
        assert process.wait(40) == 0
    assert (refused.status_code, refused.json()["status"]) == (503, 503)
    assert text.count("TOKEN {") == 300
    assert "event: done\ndata: {}\n" in text


def test_a_signal_during_the_start_ends_it_too(built):
    _, root = built
    with serving(root, "tiny", until="tiny: starting") as (process, _):
        wait_until(lambda: started_by(process.pid))
        processes = started_by(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        wait_until(lambda: not any(map(is_alive, processes)))


def test_a_second_signal_ends_it_at_once(built):
    _, root = built
    with serving(root, "tiny") as (process, url):
        prediction = create(url, max_tokens=8000).json()
        wait_for_output(prediction)
        processes = started_by(process.pid)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in said(root))
        assert look(prediction)["status"] == "processing"
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        wait_until(lambda: not any(map(is_alive, processes)))
    assert not Path("/tmp/coglet/predictions", prediction["id"]).exists()


def test_a_closed_terminal_ends_it_in_good_order(built, tmp_path):
    _, root = built
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-m", "cogsmith.cli.main", "serve", "tiny", "--port", "0"]
    settings = {"start_new_session": True, "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)}
    variables = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        command, cwd=root, stdin=its_end, stdout=its_end, stderr=its_end, env=variables, **settings
    )
    os.close(its_end)
    said = ""
    try:
        while "Ctrl-C ends" not in said:
            said += os.read(terminal, 4096).decode()
        url = re.search(r"listening on (http://[\w.:]+)", said)[1]
        assert httpx2.post(f"{url}/files", files={"content": b"x"}, trust_env=False).status_code == 201
        processes = started_by(process.pid)
        os.close(terminal)
        assert process.wait(30) == 0
        wait_until(lambda: not any(map(is_alive, processes)))
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.glob("cogsmith-files-*")) == []


def test_under_nohup_a_closed_terminal_does_not_matter(built):
    _, root = built
    with serving(root, "tiny", "--lazy", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as (
        process,
        url,
    ):
        process.send_signal(signal.SIGHUP)
        assert model_info(url)["model"] == "tiny"


def test_it_goes_on_when_nobody_reads_what_it_says(built):
    _, root = built
    command = [sys.executable, "-m", "cogsmith.cli.main", "serve", "tiny", "--port", "0"]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE)
    try:
        url = re.search(rb"listening on (http://\S+)", process.stderr.readline())[1].decode()
        process.stderr.close()
        assert model_info(url)["model"] == "tiny"
        processes = started_by(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        wait_until(lambda: not any(map(is_alive, processes)))
    finally:
        process.kill()
        process.wait()


def test_a_connection_that_was_idle_for_some_seconds_is_still_good(built):
    _, root = built
    with serving(root, "tiny", "--lazy") as (_, url):
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        for pause in (6, 0):  # httpx closes an idle one after five
            connection.request("GET", "/v1/account")
            assert connection.getresponse().read()
            time.sleep(pause)


def test_a_killed_gateway_leaves_no_process_behind_however_busy(built):
    _, root = built
    with serving(root, "tiny") as (process, url):
        wait_for_output(create(url, max_tokens=8000).json())
        processes = started_by(process.pid)
        assert len(processes) == 2
        process.kill()
        wait_until(lambda: not any(map(is_alive, processes)), 30)


def test_options_it_does_not_know_go_to_the_model_and_no_gpu_is_shown(built):
    _, root = built
    with serving(root, "tiny", "--dtype", "float64", CUDA_VISIBLE_DEVICES="0") as (process, url):
        server, _ = started_by(process.pid)
        assert model_info(url)["dtype"] == "float64"
        assert b"\0CUDA_VISIBLE_DEVICES=\0" in Path(f"/proc/{server}/environ").read_bytes()


def test_with_cuda_the_model_spreads_over_the_gpus_that_are_shown(built):
    _, root = built
    with serving(root, "tiny", "--cuda", "--lazy", CUDA_VISIBLE_DEVICES="3") as (process, url):
        assert started_by(process.pid) == []
        model_info(url)
        server, _ = started_by(process.pid)
        environment = Path(f"/proc/{server}/environ").read_bytes()
    assert b"\0CUDA_VISIBLE_DEVICES=3\0" in environment
    assert b'\0COGSMITH_MODEL_ARGS={"device_map": "auto"}\0' in environment


def test_a_checkpoint_folder_is_served_by_the_same_runtime(built, tmp_path):
    _, root = built
    with serving(root, str(root / "checkpoint"), COGSMITH_CACHE=str(tmp_path)) as (_, url):
        info = model_info(url)
    assert (info["model"], info["vocab_size"]) == ("checkpoint", 256)


def test_a_model_that_cannot_be_set_up_ends_it_with_the_reason(built):
    _, root = built
    result = cogsmith(root, "serve", "tiny", "--port", "0", "--dtype", "float17")
    assert result.returncode == 1
    assert "float17" in result.stderr


def test_a_taken_port_is_said_before_the_model_loads(built):
    _, root = built
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cogsmith(root, "serve", "tiny", "--port", str(port))
    assert result.returncode == 1
    assert f"port {port} on 127.0.0.1 cannot be used" in result.stderr
    assert "starting" not in result.stderr


def test_python_serves_on_a_thread_until_it_is_told_to_stop(built):
    _, root = built
    gateways = queue.Queue()
    settings = {"port": 0, "on_start": gateways.put, "dtype": "float64"}
    thread = threading.Thread(target=cogsmith_package.serve, args=(str(root / "work/tiny"),), kwargs=settings)
    thread.start()
    gateway = gateways.get(timeout=30)
    try:
        assert model_info(gateway.url)["dtype"] == "float64"
    finally:
        gateway.stop()
        thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(gateway.url, trust_env=False)
