"""A prediction's life over Replicate's HTTP API: created, awaited, followed, cancelled, told of elsewhere."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from .problems import is_problem
from .stand_in import VERSION, talk, until

# 4, 11, 13, 16: a prediction's life


def test_a_prediction_is_created_followed_and_found_again():
    async def conversation(local):
        body = {"version": VERSION, "input": {"chunks": ["a"]}}
        answer = await local.http.post("/v1/predictions", json=body, headers={"Authorization": "Token x"})
        return answer, await local.ended(answer.json())

    answer, ended = talk(conversation)
    created = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == created["urls"]["get"]
    assert len(created["id"]) == 26
    assert set(created["id"]) <= set("abcdefghijklmnopqrstuvwxyz234567")
    nothing_yet = {"output": None, "error": None, "started_at": None, "completed_at": None, "logs": "", "metrics": {}}
    assert created.items() >= {"status": "starting", "source": "api", "data_removed": False, **nothing_yet}.items()
    assert created.items() >= {"version": VERSION, "model": "local/tiny", "input": {"chunks": ["a"]}}.items()
    assert ended.items() >= {"status": "succeeded", "output": ["a"], "error": None, "id": created["id"]}.items()
    assert ended["metrics"]["predict_time"] == 0.25  # as Cog counted it
    times = [
        datetime.strptime(ended[f"{name}_at"], "%Y-%m-%dT%H:%M:%S.%fZ") for name in ("created", "started", "completed")
    ]
    assert times == sorted(times)
    assert ended["metrics"]["total_time"] == pytest.approx((times[2] - times[0]).total_seconds())
    assert "deadline" not in ended


def test_output_grows_while_the_prediction_runs():
    async def conversation(local):
        created = await local.create(["a", "b"], hold=True)
        await until(lambda: len(local.predictions.get(created["id"]).output) == 2)
        growing = (await local.http.get(created["urls"]["get"])).json()
        local.cog.released.set()
        return growing, await local.ended(created)

    growing, ended = talk(conversation)
    assert (growing["status"], growing["output"]) == ("processing", ["a", "b"])
    assert growing["completed_at"] is None
    assert (ended["status"], ended["output"]) == ("succeeded", ["a", "b"])


def test_a_running_prediction_is_cancelled_with_what_it_has():
    async def conversation(local):
        created = await local.create(["a"], hold=True)
        await until(lambda: local.predictions.get(created["id"]).has_output)
        cancelled = await local.http.post(created["urls"]["cancel"])
        events = await local.read(created)
        await until(lambda: not local.cog.running)
        again = await local.http.post(created["urls"]["cancel"])
        return cancelled, events, again

    cancelled, events, again = talk(conversation)
    assert cancelled.status_code == 200
    assert cancelled.json().items() >= {"status": "canceled", "output": ["a"], "error": None}.items()
    assert events[-1][1:] == ("done", '{"reason": "canceled"}')
    assert again.json() == cancelled.json()


# 7: no client knows "aborted"


def test_a_prediction_cancelled_before_its_start_is_canceled_and_never_reaches_the_model():
    async def conversation(local):
        running = await local.create(["a"], hold=True)
        await until(lambda: local.cog.running)
        waiting = await local.create(["b"])
        cancelled = (await local.http.post(waiting["urls"]["cancel"])).json()
        local.cog.released.set()
        await local.ended(running)
        return cancelled, local.cog.attempts, local.worker.num_asked, running["id"]

    cancelled, attempts, num_asked, running = talk(conversation, concurrency=1)
    assert (cancelled["status"], cancelled["started_at"]) == ("canceled", None)
    assert cancelled["completed_at"] is not None
    assert (attempts, num_asked) == ([running], 1)


@pytest.mark.parametrize("held_by_another", [False, True])
def test_cancel_after_ends_a_prediction_that_runs_or_waits(held_by_another):
    async def conversation(local):
        if held_by_another:
            await local.create(["x"], hold=True)
        created = await local.create(["a"], hold=True, headers={"Cancel-After": "1s"})
        return created, await local.ended(created)

    created, ended = talk(conversation, concurrency=1)
    assert ended["status"] == "canceled"
    assert created["deadline"] == ended["deadline"]
    spent = datetime.fromisoformat(ended["completed_at"]) - datetime.fromisoformat(ended["created_at"])
    assert spent >= timedelta(seconds=0.9)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1m", 60), ("1h30m", 5400), ("300", 300), ("2h", 7200), ("1m5s", 65)]
)
def test_a_deadline_is_a_duration_from_now(text, seconds):
    async def conversation(local):
        created = await local.create(headers={"Cancel-After": text})
        return datetime.fromisoformat(created["deadline"]) - datetime.now(UTC)

    assert abs(talk(conversation).total_seconds() - seconds) < 5


@pytest.mark.parametrize("text", ["soon", "", "-5s", "5d", "0", "1.5h", "m", "99999999h"])
def test_what_is_no_duration_is_refused_before_anything_runs(text):
    async def conversation(local):
        body = {"version": VERSION, "input": {"chunks": []}}
        answer = await local.http.post("/predictions", json=body, headers={"Cancel-After": text})
        return answer, local.cog.attempts

    answer, attempts = talk(conversation)
    assert repr(text) in is_problem(answer, 400, "Invalid Cancel-After header")
    assert attempts == []


# 8: Prefer: wait


@pytest.mark.parametrize("prefer", ["wait", "wait=30", "respond-async, wait=30", 'WAIT="30"', "wait=9999"])
def test_a_caller_who_waits_gets_the_end(prefer):
    async def conversation(local):
        body = {"version": VERSION, "input": {"chunks": ["a", "b"]}}
        return await local.http.post("/predictions", json=body, headers={"Prefer": prefer})

    answer = talk(conversation)
    assert answer.status_code == 201
    assert answer.json().items() >= {"status": "succeeded", "output": ["a", "b"]}.items()


def test_a_caller_who_waits_in_vain_gets_a_prediction_that_has_shown_nothing():
    async def conversation(local):
        body = {"version": VERSION, "input": {"chunks": ["a"], "hold": True}}
        return await local.http.post("/predictions", json=body, headers={"Prefer": "wait=1"})

    answer = talk(conversation)
    assert answer.status_code == 202
    assert answer.json().items() >= {"status": "starting", "output": None, "started_at": None}.items()


@pytest.mark.parametrize("prefer", ["wait=0", "wait=x", "wait=-3", "waiting", "respond-async", "wait=1.5"])
def test_a_preference_that_makes_no_sense_is_ignored(prefer):
    async def conversation(local):
        body = {"version": VERSION, "input": {"chunks": ["a"], "hold": True}}
        return await asyncio.wait_for(local.http.post("/predictions", json=body, headers={"Prefer": prefer}), 5)

    answer = talk(conversation)
    assert (answer.status_code, answer.json()["status"]) == (201, "starting")


# Webhooks are sent elsewhere; what they are told of is decided here.


@pytest.mark.parametrize(
    ("body", "url", "changes"),
    [
        ({}, None, None),
        ({"webhook": "http://h/x"}, "http://h/x", {"start", "output", "logs", "completed"}),
        ({"webhook": "https://h/x", "webhook_events_filter": ["start"]}, "https://h/x", {"start"}),
        ({"webhook_completed": "http://h/y"}, "http://h/y", {"completed"}),
    ],
)
def test_a_webhook_is_asked_for_what_its_filter_says(body, url, changes):
    async def conversation(local):
        asked = {"version": VERSION, "input": {"chunks": []}, **body}
        created = (await local.http.post("/v1/predictions", json=asked)).json()
        return local.predictions.get(created["id"]).webhook

    webhook = talk(conversation)
    assert (webhook and webhook.url, webhook and set(webhook.changes)) == (url, changes)


@pytest.mark.parametrize(
    "url", ["", "h/x", "ftp://h", "http://", "http://[::1", "http://h:65536", "http://h:x", "http://h/\n"]
)
def test_a_webhook_that_cannot_be_sent_to_is_refused(api, url):
    body = {"version": VERSION, "input": {"chunks": []}, "webhook": url}
    detail = is_problem(api.request("POST", "/v1/predictions", json=body), 422, "Input validation failed")
    assert detail == f"- webhook: {url!r} is no http or https URL\n"


def test_a_webhook_filter_knows_four_events(api):
    body = {"version": VERSION, "input": {"chunks": []}, "webhook": "http://h", "webhook_events_filter": ["end"]}
    detail = is_problem(api.request("POST", "/v1/predictions", json=body), 422, "Input validation failed")
    assert json.dumps(["start", "output", "logs", "completed"])[1:-1] in detail
