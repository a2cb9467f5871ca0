"""The official clients, their code untouched, against the gateway over a tiny model: two of Python, one of JavaScript.

The truth is plain transformers. Each client's script (`clients/run_replicate_*`) offers the same functions.
"""

import hashlib
import http.server
import json
import queue
import threading
from contextlib import contextmanager

import httpx2
import pytest
import standardwebhooks

from .clients import peer
from .clients.official import CLIENTS, running
from .lmtp_inputs import items, lmtp, tokens

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]

INPUTS = [
    "add_generation_prompt",
    "cache",
    "choices",
    "do_sample",
    "eos_token_id",
    "frequency_penalty",
    "generator",
    "grammar",
    "input",
    "instruction",
    "json_schema",
    "logit_bias",
    "masked_tokens",
    "max_gen_len",
    "max_new_tokens",
    "max_tokens",
    "messages",
    "min_new_tokens",
    "ops_batch_json",
    "pad_token_id",
    "presence_penalty",
    "prompt",
    "prompts",
    "qas",
    "regex",
    "repetition_penalty",
    "return_cache",
    "return_logits",
    "return_prompt",
    "seed",
    "skip_special_tokens",
    "stop",
    "stream",
    "system_prompt",
    "temperature",
    "template",
    "top_k",
    "top_p",
    "truncate_prompt",
    "use_cache",
    "warmup",
]


@pytest.fixture(scope="module", params=CLIENTS)
def client(request, gateway, client_environments):
    with running(request.param, gateway.url, client_environments) as started:
        yield started


@pytest.fixture(scope="module")
def version(gateway):
    return httpx2.get(f"{gateway.url}/v1/models/org/tiny").json()["latest_version"]["id"]


def only(*names):
    """For a test of what not every client has."""
    return pytest.mark.parametrize("client", names, indirect=True)


def test_run_gives_the_plain_models_tokens_and_logprobs(client, plain_tiny):
    output = client.call("run", ref="org/tiny", input=lmtp([1, 2, 3], max_tokens=12, top_logprobs=2))
    expected = plain_tiny.greedy([1, 2, 3], 12)
    assert tokens(output) == expected
    logprobs = plain_tiny.score([1, 2, 3], expected)
    assert [item["logprob"] for item in items(output)] == pytest.approx(logprobs, abs=1e-4)


def test_run_of_a_pinned_version(client, version, plain_tiny):
    output = client.call("run", ref=f"org/tiny:{version}", input=lmtp([4, 5], max_tokens=7))
    assert tokens(output) == plain_tiny.greedy([4, 5], 7)


def test_run_gives_a_person_text(client, plain_tiny):
    prompt = "Grüße\n\n"
    text = client.call("run", ref="org/tiny", input={"prompt": prompt, "max_tokens": 60})
    assert text == plain_tiny.decode(plain_tiny.greedy(plain_tiny.encode(prompt), 60))


def test_a_stream_comes_in_whole_lines(client, plain_tiny):
    chunks = client.call("stream", ref="org/tiny", input=lmtp([7, 8], max_tokens=300))
    assert tokens("".join(chunks)) == plain_tiny.greedy([7, 8], 300)
    assert len(chunks) > 10
    assert all(chunk.endswith("\n") for chunk in chunks)


def test_two_streams_of_one_prediction(client, plain_tiny):
    operations = [["GENERATE", {"prompt": [i, 9], "stream_id": i, "max_tokens": 20}] for i in (1, 2)]
    output = client.call("run", ref="org/tiny", input={"ops_batch_json": json.dumps(operations)})
    for i in (1, 2):
        made = [item["token"] for item in items(output) if item["stream_id"] == i]
        assert made == plain_tiny.greedy([i, 9], 20)


@only("replicate-1.0.7", "replicate-2.0.0b4")
def test_the_asynchronous_faces(client, plain_tiny):
    expected = plain_tiny.greedy([11, 12], 30)
    arguments = {"ref": "org/tiny", "input": lmtp([11, 12], max_tokens=30)}
    assert tokens(client.call("async_run", **arguments)) == expected
    if client.name == "replicate-1.0.7":
        assert tokens("".join(client.call("async_stream", **arguments))) == expected


def test_what_a_model_says_of_itself(client, version):
    found = client.call("model", owner="org", name="tiny")
    assert found == {
        "owner": "org",
        "name": "tiny",
        "version": version,
        "versions": [version],
        "models": ["tiny"],
        "inputs": INPUTS,
    }
    assert len(version) == 64


def test_the_life_of_a_prediction(client, version, plain_tiny):
    inputs = lmtp([1, 2, 3], max_tokens=12)
    prediction = client.call("predict", version=version, input=inputs)
    assert prediction["statuses"][0] in ("starting", "processing")
    assert prediction["statuses"][1] == prediction["status"] == "succeeded"
    assert tokens("".join(prediction["output"])) == plain_tiny.greedy([1, 2, 3], 12)
    assert prediction["input"] == inputs
    assert (prediction["model"], prediction["version"], prediction["error"]) == ("local/tiny", version, None)
    assert prediction["metrics"]["output_token_count"] == 12
    assert 0 < prediction["metrics"]["predict_time"] <= prediction["metrics"]["total_time"]
    assert prediction["created_at"] <= prediction["started_at"] <= prediction["completed_at"]


def test_a_deployment(client, plain_tiny):
    output = client.call("predict_by_deployment", owner="org", name="tiny", input=lmtp([3], max_tokens=5))
    assert tokens(output) == plain_tiny.greedy([3], 5)


@only("replicate-1.0.7")
def test_output_by_polling(client, version, plain_tiny):
    chunks = client.call("output_iterator", version=version, input=lmtp([7, 9], max_tokens=300))
    assert tokens("".join(chunks)) == plain_tiny.greedy([7, 9], 300)


@only("replicate-2.0.0b4")
def test_a_model_as_a_function(client, version, plain_tiny):
    for ref in ("org/tiny", f"org/tiny:{version}"):
        output = client.call("use", ref=ref, input=lmtp([7, 9], max_tokens=8))
        assert tokens(output) == plain_tiny.greedy([7, 9], 8)


def test_cancel(client, version):
    statuses = client.call("cancel", version=version, input=lmtp([1], max_tokens=8000))
    assert statuses == ["processing", "canceled", "canceled"]


@only("replicate-2.0.0b4")
def test_a_prediction_is_cancelled_at_its_deadline(client, version):
    prediction = client.call("cancel_after", version=version, input=lmtp([1], max_tokens=8000), duration="1s")
    assert prediction["status"] == "canceled"
    assert prediction["metrics"]["total_time"] >= 1


def test_predictions_are_listed_newest_first_over_pages(client, gateway, version):
    with httpx2.Client(base_url=f"{gateway.url}/v1") as http:
        # Without any input they fail, which takes no time of the model's.
        answers = [http.post("/predictions", json={"version": version, "input": {}}) for _ in range(101)]
    ids = [answer.json()["id"] for answer in answers]
    assert client.call("newest", count=101) == ids[::-1]


def test_files(client):
    content = "a file\n" * 1000
    assert client.call("file", content=content) == {
        "size": len(content),
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "was_listed": True,
        "is_listed": False,
    }


def test_a_file_as_an_input_is_uploaded(client, version):
    url = client.call("file_as_prompt", version=version, content="what the file says")
    file = httpx2.get(url).json()
    assert file["checksums"]["sha256"] == hashlib.sha256(b"what the file says").hexdigest()
    assert httpx2.get(file["urls"]["download"]).text == "what the file says"


@contextmanager
def receiver():
    """A server that takes webhooks: its URL, and a queue of the headers and body of each."""
    taken = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            taken.put(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", taken
        finally:
            server.shutdown()
            thread.join()


def test_webhooks_are_signed(client, version, plain_tiny):
    with receiver() as (url, taken):
        id_ = client.call("predict_with_webhook", version=version, input=lmtp([1], max_tokens=5), webhook=url)
        headers, body = taken.get(timeout=30)
    secret = client.call("webhook_secret")
    prediction = standardwebhooks.Webhook(secret).verify(body, headers)
    assert (prediction["id"], prediction["status"]) == (id_, "succeeded")
    assert tokens("".join(prediction["output"])) == plain_tiny.greedy([1], 5)
    if client.name != "replicate-2.0.0b4":
        assert client.call("webhook_is_valid", headers=headers, body=body, secret=secret)
        assert not client.call("webhook_is_valid", headers=headers, body=body + " ", secret=secret)


def test_errors_say_what_is_wrong(client, version):
    with pytest.raises(peer.PeerError, match=r"(?i)404|not found"):
        client.call("run", ref="org/another", input={"prompt": "x"})
    with pytest.raises(peer.PeerError, match=r"(?s)422.*max_tokens|max_tokens.*422"):
        client.call("run", ref="org/tiny", input={"prompt": "x", "max_tokens": "many"})
    with pytest.raises(peer.PeerError, match="no chat template"):
        client.call("run", ref="org/tiny", input={"messages": [{"role": "user", "content": "x"}]})
