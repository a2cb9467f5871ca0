"""The predictor under the real Cog runtime: streaming, concurrency, cancellation, deadlines, errors, health."""

import json
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from cogsmith.client.cog_server import Prediction
from cogsmith.errors import ClientError
from cogsmith.gateway import cog_process

from ..engine.models import plain_logprobs

ASYNC = {"Prefer": "respond-async"}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cog-server")]


def batch(*operations):
    return {"ops_batch_json": json.dumps(operations)}


def generate(stream_id=1, prompt=(1, 2, 3), **fields):
    return ["GENERATE", {"prompt": list(prompt), "stream_id": stream_id, **fields}]


def payloads(url, inputs):
    text = "".join(Prediction(url, inputs).chunks())
    return [json.loads(line.split(" ", 1)[1]) for line in text.splitlines()]


def test_tokens_and_logprobs_are_those_of_the_plain_model(served):
    model, url = served
    items = payloads(url, batch(generate(max_tokens=12, top_logprobs=3)))
    plain = plain_logprobs(model, [1, 2, 3, *(item["token"] for item in items)])
    for step, item in enumerate(items):
        assert item["token"] == plain[2 + step].argmax()
        for token, logprob in item["top_logprobs"].items():
            assert logprob == pytest.approx(plain[2 + step, int(token)].item(), abs=1e-4)
    assert items[-1]["finish_reason"] == "length"


def test_tokens_stream_while_they_are_made(served):
    _, url = served
    started = time.monotonic()
    times = [time.monotonic() - started for _ in Prediction(url, batch(generate(max_tokens=2000))).chunks()]
    assert len(times) > 100
    assert times[0] < times[-1] / 2


def test_predictions_overlap(served):
    """Eight at once: every one has begun before any has ended."""
    _, url = served

    def first_and_last(first):
        times = [
            time.monotonic() for _ in Prediction(url, batch(generate(prompt=(first, 2), max_tokens=1500))).chunks()
        ]
        return times[0], times[-1]

    with ThreadPoolExecutor(8) as pool:
        spans = list(pool.map(first_and_last, range(1, 9)))
    assert max(first for first, _ in spans) < min(last for _, last in spans)


def test_more_predictions_than_slots_all_finish_with_the_right_tokens(served):
    """The client waits out Cog's 409s, real and spurious."""
    model, url = served
    answers = {}

    def client(first):
        answers[first] = [item["token"] for item in payloads(url, batch(generate(prompt=(first, 7), max_tokens=20)))]

    threads = [threading.Thread(target=client, args=(first,)) for first in range(1, 41)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    for first, tokens in answers.items():
        plain = plain_logprobs(model, [first, 7, *tokens])
        assert tokens == plain[1:-1].argmax(-1).tolist()


def cancel(client, url, id_):
    """Cancel until it is gone: Cog loses a cancel that overtakes its own prediction's start."""
    while client.post(f"{url}/predictions/{id_}/cancel").status_code != 404:
        time.sleep(0.02)


def take_all_slots_and_free_them(url, count):
    """Start `count` endless predictions, all at once, then cancel them. Fails if a slot is not free for long.

    What nobody cancelled would hold its slot for much longer: 8000 tokens.
    """
    ids = [f"long-{time.monotonic_ns()}-{i}" for i in range(count)]
    inputs = {"input": batch(generate(max_tokens=8000))}
    deadline = time.monotonic() + 10
    with httpx2.Client() as client:
        for id_ in ids:
            while client.put(f"{url}/predictions/{id_}", json=inputs, headers=ASYNC).status_code == 409:
                assert time.monotonic() < deadline, "a slot is not free"
                time.sleep(0.02)
        assert client.get(f"{url}/health-check").json()["status"] == "BUSY"
        for id_ in ids:
            cancel(client, url, id_)


def test_cogs_cancel_frees_every_slot(served):
    _, url = served
    for _ in range(3):
        take_all_slots_and_free_them(url, 16)
    assert len(payloads(url, batch(generate(max_tokens=3)))) == 3


def test_a_dropped_connection_frees_the_slot(served):
    _, url = served
    for _ in range(16):
        chunks = Prediction(url, batch(generate(max_tokens=8000))).chunks()
        next(chunks)
        chunks.close()
    take_all_slots_and_free_them(url, 16)


def test_cancels_and_disconnects_under_load_disturb_nobody(served):
    model, url = served
    stop = threading.Event()

    def vandal():
        while not stop.is_set():
            chunks = Prediction(url, batch(generate(max_tokens=5000, prompt=(9, 9)))).chunks()
            for _, _ in zip(chunks, range(3), strict=False):
                pass
            chunks.close()

    vandals = [threading.Thread(target=vandal) for _ in range(4)]
    for thread in vandals:
        thread.start()
    try:
        for first in range(1, 9):
            tokens = [item["token"] for item in payloads(url, batch(generate(prompt=(first, 3), max_tokens=40)))]
            plain = plain_logprobs(model, [first, 3, *tokens])
            assert tokens == plain[1:-1].argmax(-1).tolist()
    finally:
        stop.set()
        for thread in vandals:
            thread.join()


def test_the_deadline_ends_a_prediction_without_a_finish_reason(served_briefly):
    started = time.monotonic()
    items = payloads(served_briefly, batch(generate(max_tokens=8000)))
    assert time.monotonic() - started >= 2
    assert 4 < len(items) < 8000
    assert all(item["finish_reason"] is None for item in items)


def test_a_bad_operation_beside_a_good_one(served):
    _, url = served
    items = payloads(url, batch(generate(1, max_tokens=3), generate(2, prompt=(999,))))
    assert "999" in next(item for item in items if item["stream_id"] == 2)["error"]
    assert [item["finish_reason"] for item in items if item["stream_id"] == 1] == [None, None, "length"]


def test_metrics_are_reported(served):
    _, url = served
    prediction = Prediction(url, batch(generate(max_tokens=5)))
    list(prediction.chunks())
    assert prediction.metrics["input_token_count"] == 3
    assert prediction.metrics["output_token_count"] == 5
    assert prediction.metrics["time_to_first_token"] > 0


def test_a_person_gets_text(served):
    _, url = served
    prediction = Prediction(url, {"prompt": "Hello", "max_tokens": 10})
    assert "".join(prediction.chunks())
    assert prediction.metrics["output_token_count"] == 10


def test_a_person_is_told_of_the_deadline(served_briefly):
    with pytest.raises(ClientError, match="has had its 2 seconds"):
        list(Prediction(served_briefly, {"prompt": "Hello", "max_tokens": 8000}).chunks())


def test_inputs_are_checked_before_anything_runs(served):
    _, url = served
    with pytest.raises(ClientError, match="max_tokens"):
        list(Prediction(url, {"prompt": "Hello", "max_tokens": 0}).chunks())
    with pytest.raises(ClientError, match="none of prompt, prompts, messages, instruction is given"):
        list(Prediction(url, {}).chunks())
    with pytest.raises(ClientError, match="ops_batch_json is given together with a prompt"):
        list(Prediction(url, {"prompt": "Hello", **batch(generate())}).chunks())


def test_a_synchronous_post_gets_the_whole_answer(served):
    _, url = served
    answer = httpx2.post(f"{url}/predictions", json={"input": batch(generate(max_tokens=4))}, timeout=30).json()
    assert answer["status"] == "succeeded"
    assert len("".join(answer["output"]).splitlines()) == 4


def test_a_server_outlives_the_thread_that_started_it_and_not_its_stop(tiny):
    """To Linux, the parent that a process may not outlive is a thread."""
    _, folder = tiny
    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(cog_process.start, folder).result()
    try:
        server.wait_until_ready(60)
    finally:
        server.stop()
    server.stop()
    with pytest.raises(ClientError, match=r"127\..* cannot be reached"):
        list(Prediction(server.url, batch(generate())).chunks())


def answers(url):
    try:
        return httpx2.get(f"{url}/health-check").is_success
    except httpx2.TransportError:
        return False


def test_nothing_outlives_a_killed_parent(tiny):
    _, folder = tiny
    program = (
        "import sys, time, pathlib; from cogsmith.gateway import cog_process;"
        "server = cog_process.start(pathlib.Path(sys.argv[1]));"
        "server.wait_until_ready(60); print(server.url, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, text=True)
    url = parent.stdout.readline().strip()
    assert answers(url)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while answers(url):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_conservative_predictor_streams_and_is_cancelled(served_singly):
    """With `cog.concurrency = 1` the plain synchronous form is rendered."""
    model, url = served_singly
    items = payloads(url, batch(generate(max_tokens=12)))
    plain = plain_logprobs(model, [1, 2, 3, *(item["token"] for item in items)])
    assert [item["token"] for item in items] == plain[2:-1].argmax(-1).tolist()
    for _ in range(3):
        chunks = Prediction(url, batch(generate(max_tokens=8000))).chunks()
        next(chunks)
        chunks.close()
        take_all_slots_and_free_them(url, 1)


def test_a_work_directory_runs_its_own_copy_of_the_engine(tiny, tmp_path):
    """As in the image, where nothing else of this project is installed."""
    folder = shutil.copytree(tiny[1], tmp_path / "copy")
    info = folder / "cogsmith/predictor/info.py"
    info.write_text(info.read_text().replace('"lmtp": "1.1"', '"lmtp": "this copy"'))
    with cog_process.running(folder) as server:
        (answer,) = payloads(server.url, batch(["MODEL_INFO", {"stream_id": 1}]))
    assert answer["model_info"]["lmtp"] == "this copy"
