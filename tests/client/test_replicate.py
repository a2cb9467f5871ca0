"""Calls through Replicate's API: what is sent, what comes back, and what is charged for."""

from __future__ import annotations

import asyncio

import pytest

from cogsmith.client import Timeouts, connect
from cogsmith.errors import (
    AuthenticationError,
    EndpointError,
    NotFound,
    OperationFailed,
    RateLimited,
    RequestRejected,
    ServiceUnavailable,
)

from .arithmetic import continuation, logprob
from .replicate_calls import MODEL, call, generate


def test_tokens_and_logprobs_arrive(service):
    result = call(generate((1, 2), max_tokens=5))
    assert result.ids == continuation((1, 2), 5)
    assert [token.logprob for token in result.tokens] == [
        logprob([1, 2, *result.ids[:step]], token) for step, token in enumerate(result.ids)
    ]
    assert result.tokens[0].top_logprobs == {0: -9.5}
    assert result.finish_reason == "length"
    assert (result.usage.prompt_tokens, result.usage.tokens) == (2, 5)
    assert result.timing.total_ms == 2.5


def test_calls_of_one_moment_share_a_prediction(service):
    async def work(client):
        streams = [client.generate([i], max_tokens=i + 1) for i in range(20)]
        scores = client.score([1], [[2, 3], [4]])
        return await asyncio.gather(scores, *(stream.result() for stream in streams))

    scored, *results = call(work)
    assert [result.ids for result in results] == [continuation([i], i + 1) for i in range(20)]
    assert [one.ids for one in scored] == [(2, 3), (4,)]
    assert [token.logprob for token in scored[0].tokens] == [logprob([1], 2), logprob([1, 2], 3)]
    assert len(service.work) == 1
    assert len(service.batches) == 2  # and the question what the model is


def test_more_calls_than_a_batch_holds(service):
    async def work(client):
        return await asyncio.gather(*(client.generate([i % 90], max_tokens=2).result() for i in range(150)))

    assert [result.ids for result in call(work)] == [continuation([i % 90], 2) for i in range(150)]
    assert sorted(len([verb for verb, _ in batch if verb == "GENERATE"]) for batch in service.work) == [22, 64, 64]


def test_branches_are_told_apart(service):
    async def work(client):
        return [(token.index, token.token) async for token in client.generate([3], max_tokens=4, n=3)]

    tokens = call(work)
    for index in range(3):
        assert tuple(token for i, token in tokens if i == index) == continuation([3], 4)


@pytest.mark.parametrize(
    ("endpoint", "path", "version"),
    [
        ("replicate:o/m", "/v1/predictions", "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"),
        ("replicate:o/m/0e9e39f", "/v1/predictions", "0e9e39f"),
        ("replicate:deployment/o/d", "/v1/deployments/o/d/predictions", None),
    ],
)
def test_where_predictions_are_created(service, endpoint, path, version):
    call(generate(), endpoint)
    assert f"POST {path}" in service.requests
    assert {body.get("version") for body in service.bodies} == {version}
    assert service.requests.count("GET /v1/models/o/m") == (endpoint == "replicate:o/m")


def test_a_model_without_versions(service):
    service.latest_version = None
    call(generate())
    assert "POST /v1/models/o/m/predictions" in service.requests


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_base_url_may_end_in_v1(service, monkeypatch, suffix):
    monkeypatch.delenv("REPLICATE_BASE_URL")
    assert call(generate(max_tokens=3), base_url=service.url + suffix).ids == continuation((1, 2), 3)


def test_a_base_url_that_is_none(service):
    with pytest.raises(EndpointError, match="'localhost:1'"):
        connect(MODEL, base_url="localhost:1")


def test_without_a_token(service, monkeypatch):
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    with pytest.raises(AuthenticationError, match="REPLICATE_API_TOKEN"):
        connect(MODEL)


def test_the_token_goes_with_every_request_and_nowhere_else(service, caplog):
    caplog.set_level(0)
    service.faults.create = [(401, {})]

    async def work(client):
        await client.generate([1], max_tokens=1).result()

    with pytest.raises(AuthenticationError) as caught:
        call(work, token="r8_mine")
    assert {headers["authorization"] for headers in service.headers} == {"Bearer r8_mine"}
    told = repr(caught.value) + str(caught.value) + caplog.text + repr(connect(MODEL, token="r8_mine"))
    assert "r8_mine" not in told


def test_another_host_does_not_get_the_token(service, monkeypatch):
    """Stream URLs may be anywhere, and are unguessable instead."""
    elsewhere = service.url.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("REPLICATE_BASE_URL", elsewhere)
    assert call(generate(max_tokens=2)).ids == continuation((1, 2), 2)
    sent = dict(zip(service.requests, service.headers, strict=True))
    assert "authorization" not in sent["GET /stream/p0"]
    assert "authorization" in sent["GET /v1/models/o/m"]


@pytest.mark.parametrize(
    "fault", [(429, {"Retry-After": "0"}), (429, {"ratelimit-reset": "0.1"}), (429, {}), (503, {})]
)
def test_a_creation_that_surely_did_not_happen_is_repeated(service, fault):
    service.faults.create = [fault, fault]
    assert call(generate(max_tokens=3)).ids == continuation((1, 2), 3)
    assert len(service.work) == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ((500, {}), ServiceUnavailable),
        ((502, {}), ServiceUnavailable),
        ("cut", ServiceUnavailable),
        ("slow", ServiceUnavailable),
        ((429, {"Retry-After": "86400"}), RateLimited),
        ((422, {}), RequestRejected),
        ((402, {}), RequestRejected),
        ((404, {}), NotFound),
        ((403, {}), AuthenticationError),
    ],
)
def test_any_other_creation_is_sent_once(service, fault, error):
    service.faults.create = [fault]
    with pytest.raises(error) as caught:
        call(generate(), timeouts=Timeouts(idle=0.5))
    creations = service.requests.count("POST /v1/predictions") - 1
    assert creations == 1
    if error is ServiceUnavailable:
        assert caught.value.may_have_run
        assert "may have begun" in caught.value.fix


def test_no_server_at_all(monkeypatch):
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_secret")
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:9 cannot be reached") as caught:
        call(generate(), base_url="http://127.0.0.1:9")
    assert not caught.value.may_have_run


def test_a_failed_question_is_asked_again_by_the_next_call(service):
    service.fails = [404]

    async def work(client):
        with pytest.raises(NotFound):
            await client.model_info()
        return await client.model_info()

    assert call(work)["lmtp"] == "1.1"


def test_an_error_of_one_operation_is_its_own(service):
    async def work(client):
        good = [client.generate([i], max_tokens=6) for i in (1, 2)]
        bad = client.generate([98], max_tokens=6)
        with pytest.raises(OperationFailed, match="takes no 98"):
            await bad.result()
        return [(await stream.result()).ids for stream in good]

    assert call(work) == [continuation([i], 6) for i in (1, 2)]
    assert len(service.work) == 1
