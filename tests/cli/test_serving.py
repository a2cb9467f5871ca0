"""The commands that run a model, on a tiny random one under the real Cog runtime."""

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
import numpy
import pytest
import torch
from websockets.sync.client import connect

import cogsmith as cogsmith_package

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


def test_predict_takes_inputs_by_name_and_keeps_the_files_of_an_answer(built):
    model, root = built
    begin = ("-i", "prompt=Hello", "-i", "max_new_tokens=4", "-i", "return_cache=true", "--save", "kept")
    result = cogsmith(root, "predict", "tiny", *begin)
    assert result.returncode == 0, result.stderr
    begun = json.loads(result.stdout)
    assert begun["cache"] == "kept/cache.safetensors"
    go_on = ("-i", "cache=@kept/cache.safetensors", "-i", "return_logits=last", "--max-tokens", "2", "--save", "kept")
    went_on = json.loads(cogsmith(root, "predict", "tiny", *go_on).stdout)
    ids = begun["prompt_ids"] + begun["token_ids"]
    assert (went_on["prompt_ids"], went_on["cached_tokens"]) == (ids, len(ids) - 1)
    with numpy.load(root / "kept" / "arrays.npz") as arrays, torch.no_grad():
        expected = model(torch.tensor([[*ids, went_on["token_ids"][0]]])).logits[0, -2:]
        torch.testing.assert_close(torch.from_numpy(arrays["logits"]), expected, atol=1e-4, rtol=0)


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
    assert (facts["heads"], facts["key_value_heads"], facts["hidden_size"]) == (4, 2, 32)
    parts = [facts[name] for name in ("layer", "attention", "mlp", "norms")]
    assert parts == ["LlamaDecoderLayer", "LlamaAttention", "LlamaMLP", "LlamaRMSNorm"]
    assert (facts["embedding"], facts["head"]) == (str(model.model.embed_tokens), str(model.lm_head))
    assert facts["memory_footprint"] == model.get_memory_footprint() == facts["footprints"]["fp32"]
    assert f"it would be {model.get_memory_footprint() / 1e6:,.1f} MB in fp32, " in text


# serve


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
