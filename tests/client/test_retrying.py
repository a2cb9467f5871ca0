"""What is tried again, when, and who hears of it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time

import pytest

from cogsmith.client.http_calls import can_repeat_nothing
from cogsmith.client.retrying import Patience, retried
from cogsmith.errors import NotFound, RateLimited, ServiceUnavailable

from .test_replicate import call, generate

QUICK = Patience(attempts=4, seconds=0.6, first_wait=0.001, longest_wait=0.002)


def failing(errors, patience=QUICK, again=can_repeat_nothing):
    """Return how often it was tried until it went well, with these errors before."""
    left = list(errors)

    async def work():
        if left:
            raise left.pop(0)
        return len(errors) + 1

    return asyncio.run(retried(work, again, patience))


@pytest.mark.parametrize("error", [RateLimited("no"), RateLimited("no", retry_after=0.0), ServiceUnavailable("no")])
def test_what_may_be_repeated_is(error):
    assert failing([error] * 3) == 4
    with pytest.raises(type(error)):
        failing([error] * 4)


@pytest.mark.parametrize("error", [NotFound("no"), ServiceUnavailable("no", may_have_run=True)])
def test_what_may_not_is_raised_at_once(error):
    with pytest.raises(type(error)):
        failing([error])


@pytest.mark.parametrize("kind", [RateLimited, ServiceUnavailable])
def test_the_servers_own_wait_counts(kind):
    started = time.monotonic()
    assert failing([kind("no", retry_after=0.3)]) == 2
    assert time.monotonic() - started >= 0.3
    started = time.monotonic()
    with pytest.raises(kind):
        failing([kind("no", retry_after=0.7)])
    assert time.monotonic() - started < 0.3, "a wait that is too long is not begun"


def test_time_runs_out_before_attempts_do():
    endless = Patience(attempts=None, seconds=0.2, first_wait=0.001, longest_wait=0.01)
    started = time.monotonic()
    with pytest.raises(RateLimited):
        failing([RateLimited("no")] * 10_000, endless)
    assert 0.1 < time.monotonic() - started < 5


def test_a_question_is_repeated_at_once_where_the_server_says_so(service):
    service.limited = 2
    assert call(generate(max_tokens=2)).ids
    assert service.requests.count("GET /v1/models/o/m") == 3


def test_an_answer_that_breaks_off_is_asked_for_again(service):
    service.cut_answers = 2
    assert call(generate(max_tokens=2)).ids
    assert service.requests.count("GET /v1/models/o/m") == 3


def test_an_unavailable_server_says_when_to_come_again(service):
    service.faults.create = [(503, {"Retry-After": "0.5"})]
    started = time.monotonic()
    call(generate(max_tokens=2))
    assert time.monotonic() - started >= 0.5


def test_a_program_may_hear_of_it(service, caplog):
    service.faults.create = [(429, {"Retry-After": "0"})]
    with caplog.at_level(logging.INFO, "cogsmith.client"):
        call(generate(max_tokens=2))
    assert [record.getMessage() for record in caplog.records if record.name == "cogsmith.client"] == [
        f"POST {service.url}/v1/predictions was answered with 429: fault 429; trying again in 0.0 s"
    ]


def test_nothing_is_printed(tmp_path):
    """Neither by the client nor by what it uses, with structlog at hand or without."""
    program = (
        "import cogsmith\n"
        "with cogsmith.connect('ws://127.0.0.1:9') as client:\n"
        "    try: client.model_info()\n"
        "    except cogsmith.errors.ServiceUnavailable: pass\n"
    )
    (tmp_path / "structlog.py").write_text("def get_logger(*_):\n    print('a line')\n    raise SystemExit('a hook')\n")
    command = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{program}"
    for text in (program, command):
        ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
