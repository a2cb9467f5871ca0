"""The guards before the gateway: token, rate, size, shutting down, and the access log."""

import asyncio
import logging

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from cogsmith.errors import ServeError
from cogsmith.gateway.access_log import LOGGER, AccessLog
from cogsmith.gateway.assembly import Settings
from cogsmith.gateway.limits import BodyLimit, Closing, RateLimit, RateLimits, TokenAuth
from cogsmith.gateway.problems import HANDLERS


async def length(request: Request):
    return PlainTextResponse(str(len(await request.body())))


async def greet(socket):
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


APP = Starlette(
    routes=[Route("/{path:path}", length, methods=["GET", "POST"]), WebSocketRoute("/", greet)],
    exception_handlers=HANDLERS,
)


def is_problem(answer, status):
    return (answer.status_code, answer.headers["content-type"], answer.json()["status"]) == (
        status,
        "application/problem+json",
        status,
    )


@pytest.mark.parametrize("value", ["Bearer sesame", "Token sesame", "bearer sesame"])
def test_both_schemes_of_the_official_clients_open(value):
    answer = TestClient(TokenAuth(APP, "sesame")).get("/v1/account", headers={"Authorization": value})
    assert answer.status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer no"}, {"Authorization": "Basic sesame"}])
@pytest.mark.parametrize("path", ["/", "/v1/account", "/predictions?token=sesame", "/streams/x"])
def test_without_the_token_nothing_is_answered_but_401_in_replicates_words(headers, path):
    answer = TestClient(TokenAuth(APP, "sesame")).get(path, headers=headers)
    assert is_problem(answer, 401)
    assert answer.json() == {
        "title": "Unauthenticated",
        "detail": "You did not pass a valid authentication token",
        "status": 401,
    }


@pytest.mark.parametrize("path", ["/stream/key", "/v1/stream/key"])
def test_a_stream_needs_no_token(path):
    assert TestClient(TokenAuth(APP, "sesame")).get(path).status_code == 200


@pytest.mark.parametrize("token", ["", "two words", "schlüssel", "line\nbreak"])
def test_a_token_that_no_header_can_hold_is_refused(token):
    with pytest.raises(ServeError, match="cannot stand in a header"):
        Settings(token=token)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_other_machines_come_in_with_a_token_only(host):
    with pytest.raises(ServeError, match="no token is demanded"):
        Settings(host=host)
    Settings(host=host, token="sesame")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_loopback_a_token_is_not_needed(host):
    assert Settings(host=host).token is None


@pytest.mark.parametrize(("query", "headers"), [("?token=sesame", {}), ("", {"Authorization": "Bearer sesame"})])
def test_a_websocket_may_give_the_token_in_either_place(query, headers):
    with TestClient(TokenAuth(APP, "sesame")).websocket_connect(f"/{query}", headers=headers) as socket:
        assert socket.receive_text() == "hello"


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=no", "/?other=sesame", "/stream", "/v1/stream/key"])
def test_a_websocket_without_the_token_is_refused(path):
    client = TestClient(TokenAuth(APP, "sesame"))
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(path):
        pytest.fail("it was let in")
    assert is_problem(refused.value, 401)


def test_a_body_may_be_as_long_as_is_said_and_no_longer():
    client = TestClient(BodyLimit(APP, 10))
    assert client.post("/", content=b"x" * 10).text == "10"
    too_long = client.post("/", content=b"x" * 11)
    assert is_problem(too_long, 413)
    assert "11 bytes, and this gateway takes 10" in too_long.json()["detail"]


def test_a_body_of_no_stated_length_is_stopped_too():
    answer = TestClient(BodyLimit(APP, 10)).post("/", content=iter([b"x" * 6, b"x" * 6]))
    assert is_problem(answer, 413)


def test_the_rate_is_told_as_the_hosted_service_tells_it():
    client = TestClient(RateLimit(APP, RateLimits()))
    create = [client.post("/v1/models/a/b/predictions") for _ in range(2)]
    other = client.get("/v1/models")
    assert [answer.headers["ratelimit-remaining"] for answer in [*create, other]] == ["599", "598", "2999"]
    assert 0 < int(create[0].headers["ratelimit-reset"]) <= 60
    assert "ratelimit-remaining" not in client.get("/v1/stream/key").headers


def test_an_enforced_rate_answers_429_and_when_to_come_again():
    client = TestClient(RateLimit(APP, RateLimits(creations=2, enforced=True)))
    answers = [client.post("/predictions") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert is_problem(answers[2], 429)
    assert 0 < int(answers[2].headers["retry-after"]) <= 60
    assert answers[2].headers["ratelimit-remaining"] == "0"
    assert "Request was throttled" in answers[2].json()["detail"]
    assert client.get("/predictions").status_code == 200


def test_a_closing_gateway_refuses_new_predictions_only():
    app = Closing(APP)
    client = TestClient(app)
    assert client.post("/v1/predictions").status_code == 200
    app.closing = True
    assert is_problem(client.post("/v1/predictions"), 503)
    assert is_problem(client.post("/deployments/a/b/predictions"), 503)
    assert client.post("/v1/predictions/abc/cancel").status_code == 200
    assert client.get("/v1/predictions/abc").status_code == 200


def test_the_log_has_a_line_for_each_request_and_no_secret(caplog):
    caplog.set_level(logging.INFO, LOGGER)
    client = TestClient(AccessLog(TokenAuth(APP, "sesame")))
    client.get("/v1/stream/keykeykey")
    client.post("/v1/predictions", content=b"bodybody", headers={"Authorization": "Bearer sesame"})
    client.get("/v1/predictions?token=queryquery")
    with client.websocket_connect("/?token=sesame") as socket:
        socket.receive_text()
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert [line.split()[1:4] for line in lines] == [
        ["GET", "/v1/stream/…", "200"],
        ["POST", "/v1/predictions", "200"],
        ["GET", "/v1/predictions", "401"],
        ["WEBSOCKET", "/", "101"],
    ]
    for secret in ("keykeykey", "sesame", "bodybody", "queryquery"):
        assert secret not in "".join(lines)


def test_no_path_can_write_lines_of_its_own_into_the_log(caplog):
    caplog.set_level(logging.INFO, LOGGER)
    TestClient(AccessLog(APP)).get("/v1/x%0A127.0.0.1 GET /forged 200 1 ms%1B[31m")
    (line,) = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert line.isprintable()
    assert line.split()[1:4] == ["GET", "/v1/x%0A127.0.0.1%20GET%20/forged%20200%201%20ms%1B%5B31m", "404"]


def test_a_request_that_is_given_up_is_logged_too(caplog):
    caplog.set_level(logging.INFO, LOGGER)

    async def breaks(scope, receive, send):
        raise OSError("gone")

    async def body():
        with pytest.raises(OSError, match="gone"):
            await AccessLog(breaks)({"type": "http", "method": "GET", "path": "/x", "client": None}, None, None)

    asyncio.run(body())
    assert "GET /x no answer" in caplog.text
