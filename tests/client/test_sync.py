"""The blocking face: the same results, from any thread."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import pytest

import cogsmith
from cogsmith.errors import ClientError, OperationFailed

from .arithmetic import continuation, letters, logprob


def test_generate_and_score(service):
    with cogsmith.connect("replicate:o/m") as client:
        with client.generate([1], max_tokens=4) as stream:
            assert tuple(token.token for token in stream) == continuation([1], 4)
            assert stream.inner.finish_reason == "length"
        assert client.generate([2], max_tokens=3).result().ids == continuation([2], 3)
        assert client.score([1], [[5]])[0].logprob == logprob([1], 5)
        assert client.distribution([1], [[5]]) == [1.0]
        assert client.model_info()["lmtp"] == "1.1"
        assert client.tokenizer().encode(letters([3])) == (3,)


def test_text_and_chat(service):
    with cogsmith.connect("replicate:o/m") as client:
        assert "".join(client.text(letters([1]), max_tokens=4)) == letters(continuation([1], 4))
        assert client.chat([{"content": letters([2])}], max_tokens=3).result() == letters(continuation([2], 3))


def test_errors_are_raised_where_the_call_is(service):
    with cogsmith.connect("replicate:o/m") as client, pytest.raises(OperationFailed):
        client.generate([98]).result()


def test_leaving_a_stream_early_cancels(service):
    service.faults.holds_after = 2
    with cogsmith.connect("replicate:o/m") as client, client.generate([1], max_tokens=50) as stream:
        for _ in stream:
            break
    assert service.cancelled == ["p1"]


def test_breaking_off_a_loop_cancels(service):
    """Before the client is closed: it may live for hours."""
    service.faults.holds_after = 2
    with cogsmith.connect("replicate:o/m") as client:
        for _ in client.generate([1], max_tokens=50):
            break
        assert happens(lambda: service.cancelled == ["p1"])
        # The first question of a text fetches the tokenizer.
        for _ in client.text(letters([1]), max_tokens=50):
            break
        assert happens(lambda: service.cancelled == ["p1", "p3"])


def test_a_loop_that_was_broken_off_may_go_on(service):
    with cogsmith.connect("replicate:o/m") as client:
        stream = client.generate([1], max_tokens=9)
        first = next(iter(stream))
        gc.collect()
        assert (first.token, *(token.token for token in stream)) == continuation([1], 9)
        assert stream.result().ids == continuation([1], 9)


def happens(condition, seconds=10):
    """Whether `condition` holds at some time soon."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_several_threads(service):
    results = {}
    with cogsmith.connect("replicate:o/m") as client:

        def work(first):
            results[first] = client.generate([first], max_tokens=6).result().ids

        threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert results == {first: continuation([first], 6) for first in range(8)}


def test_a_closed_client_says_so(service):
    with cogsmith.connect("replicate:o/m") as client:
        stream, text = client.generate([1], max_tokens=50), client.text([1], max_tokens=50)
    uses = [client.model_info, lambda: client.generate([1]), lambda: list(stream), stream.result, lambda: list(text)]
    for use in uses:
        with pytest.raises(ClientError, match="the client was closed"):
            use()
    stream.close()
    text.close()


def test_a_connection_is_opened_once(service):
    connection = cogsmith.connect("replicate:o/m")
    with connection as client:
        with pytest.raises(ClientError, match="opened before"), connection:
            pass
        assert client.generate([1], max_tokens=2).result().ids == continuation([1], 2)
    with pytest.raises(ClientError, match="opened before"), connection:
        pass


def test_no_thread_is_left(service):
    before = threading.active_count()
    with cogsmith.connect("replicate:o/m") as client:
        client.model_info()
    assert threading.active_count() <= before


def test_the_client_needs_no_engine():
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'cog', 'coglet', 'numpy', 'safetensors'): sys.modules[name] = None\n"
        "import cogsmith\n"
        "from cogsmith.errors import MissingExtra\n"
        "cogsmith.connect('localhost:1'); cogsmith.connect('http://localhost:1')\n"
        "cogsmith.connect('replicate:a/b', token='t')\n"
        "try: cogsmith.connect('local:.')\n"
        "except MissingExtra as error: print(error.fix)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == 'pip install "cogsmith[engine]"', ran.stderr
