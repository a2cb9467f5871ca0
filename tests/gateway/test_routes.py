"""Replicate's HTTP API, point by point, as the official clients need it."""

import asyncio
import json
import socket
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from anyio.from_thread import start_blocking_portal

from .stand_in import SCHEMA, VERSION, gateway, until


def talk(conversation, **settings):
    """Run `conversation(local)` with a gateway; return what it returns."""

    async def body():
        async with gateway(**settings) as local:
            return await conversation(local)

    return asyncio.run(body())


@pytest.fixture(scope="module")
def api():
    """A client of a gateway that the tests share which leave nothing behind."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(gateway()) as local,
        httpx2.Client(base_url=local.http.base_url, trust_env=False) as client,
    ):
        yield client


def is_problem(answer, status, title):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem = answer.json()
    assert (problem["status"], problem["title"]) == (status, title)
    return problem["detail"]


# 1, 2: both mounts, absolute URLs


@pytest.mark.parametrize(
    "path",
    [
        "/account",
        "/hardware",
        "/collections",
        "/trainings",
        "/models",
        "/models/me/tiny",
        "/models/me/tiny/versions",
        f"/models/me/tiny/versions/{VERSION}",
        "/models/me/tiny/examples",
        "/search?query=tiny",
        "/predictions",
        "/deployments",
        "/deployments/me/tiny",
    ],
)
def test_everything_is_served_with_and_without_the_prefix(api, path):
    bare, prefixed = api.get(path), api.get(f"/v1{path}")
    assert (bare.status_code, prefixed.status_code) == (200, 200)
    assert bare.json() == prefixed.json()


def test_urls_are_absolute_and_begin_as_the_caller_reached_the_gateway():
    async def conversation(local):
        created = await local.create(headers={"Host": "models.example:81"})
        again = await local.http.get(f"/predictions/{created['id']}", headers={"Host": "other.example"})
        return created["urls"], again.json()["urls"]

    created, again = talk(conversation)
    assert created.keys() == {"get", "cancel", "web", "stream"}
    assert all(url.startswith("http://models.example:81/v1/") for url in created.values())
    assert all(url.startswith("http://other.example/v1/") for url in again.values())
    assert created["get"].rpartition("/")[0] == "http://models.example:81/v1/predictions"
    assert created["cancel"] == created["get"] + "/cancel"


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


# 9, 10: models and versions


def test_a_model_shows_its_version_and_schema_under_whatever_owner_was_named(api):
    model = api.get("/v1/models/some-org/tiny")
    versions = api.get("/v1/models/some-org/tiny/versions")
    version = api.get(f"/v1/models/some-org/tiny/versions/{VERSION}")
    shown = {
        "id": VERSION,
        "created_at": "2026-01-02T00:00:00.000000Z",
        "cog_version": "0.23.1",
        "openapi_schema": SCHEMA,
    }
    assert model.json().items() >= {"owner": "some-org", "name": "tiny", "latest_version": shown}.items()
    assert model.json()["url"].endswith("/v1/models/some-org/tiny")
    assert model.json()["visibility"] == "private"
    assert versions.json() == {"previous": None, "next": None, "results": [shown]}
    assert version.json() == shown


def test_lmql_finds_a_pinned_version_although_it_writes_dollar_signs(api):
    answer = api.request("GET", f"/v1/models/$org/tiny/versions/${VERSION}")
    assert (answer.status_code, answer.json()["id"]) == (200, VERSION)


def test_runs_are_counted():
    async def conversation(local):
        for _ in range(3):
            await local.create()
        return (await local.http.get("/models/me/tiny")).json()["run_count"]

    assert talk(conversation) == 3


@pytest.mark.parametrize(("query", "found"), [("tiny", 1), ("A Tiny", 1), ('"tiny"', 1), ("llama", 0)])
def test_models_are_found_by_words(api, query, found):
    posted = api.request("QUERY", "/v1/models", content=query, headers={"Content-Type": "text/plain"})
    got = api.get("/v1/search", params={"query": query.strip('"')})
    assert len(posted.json()["results"]) == found
    assert len(got.json()["models"]) == found


def test_the_readme_is_the_work_directorys(api, tmp_path):
    (tmp_path / "README.md").write_text("# tiny\n")

    async def conversation(local):
        return await local.http.get("/v1/models/me/tiny/readme")

    answer = talk(conversation, folder=tmp_path)
    assert (answer.text, answer.headers["content-type"].partition(";")[0]) == ("# tiny\n", "text/markdown")
    assert is_problem(api.request("GET", "/v1/models/me/tiny/readme"), 404, "Not found")


# 15, 18: deployments


@pytest.mark.parametrize(
    ("path", "model", "deployment"),
    [
        ("/v1/models/org/tiny/predictions", "org/tiny", None),
        ("/models/$org/tiny/predictions", "org/tiny", None),
        ("/v1/deployments/org/tiny/predictions", "local/tiny", "org/tiny"),
    ],
)
def test_predictions_are_created_by_model_and_by_deployment(path, model, deployment):
    async def conversation(local):
        created = await local.create(["a"], path=path)
        return await local.ended(created)

    ended = talk(conversation)
    assert (ended["model"], ended.get("deployment"), ended["output"]) == (model, deployment, ["a"])


@pytest.mark.parametrize("version", [VERSION, f"org/tiny:{VERSION}", "org/tiny", "org/Tiny"])
def test_a_version_is_named_in_each_of_the_ways_that_clients_use(api, version):
    answer = api.request("POST", "/v1/predictions", json={"version": version, "input": {"chunks": []}})
    assert (answer.status_code, answer.json()["version"]) == (201, VERSION)


def test_deployments_are_made_changed_used_and_removed():
    settings = {"hardware": "gpu-t4", "min_instances": 0, "max_instances": 2}

    async def conversation(local):
        body = {"name": "mine", "model": "org/tiny", "version": VERSION, **settings}
        made = await local.http.post("/v1/deployments", json=body)
        twice = await local.http.post("/v1/deployments", json=body)
        changed = await local.http.patch("/v1/deployments/org/mine", json={"max_instances": 5})
        listed = (await local.http.get("/v1/deployments")).json()["results"]
        used = await local.ended(await local.create(["a"], path="/v1/deployments/org/mine/predictions"))
        removed = await local.http.delete("/v1/deployments/org/mine")
        gone = await local.http.get("/v1/deployments/org/mine")
        return made, twice, changed, listed, used, removed, gone

    made, twice, changed, listed, used, removed, gone = talk(conversation)
    release = made.json()["current_release"]
    assert (made.status_code, made.json()["name"]) == (201, "mine")
    assert release.items() >= {"number": 1, "model": "org/tiny", "version": VERSION, "configuration": settings}.items()
    assert "'mine'" in is_problem(twice, 409, "Conflict")
    assert changed.json()["current_release"]["number"] == 2
    assert changed.json()["current_release"]["configuration"] == {**settings, "max_instances": 5}
    assert [deployment["name"] for deployment in listed] == ["mine", "tiny"]
    assert (used["output"], used["deployment"], used["model"]) == (["a"], "org/mine", "org/tiny")
    assert (removed.status_code, removed.content) == (204, b"")
    is_problem(gone, 404, "Not found")


def test_a_deployment_is_checked_like_a_prediction(api):
    body = {"name": "No Good", "model": "org/tiny", "max_instances": -1, "zzz": 1}
    detail = is_problem(api.request("POST", "/deployments", json=body), 422, "Input validation failed")
    lines = detail.splitlines()
    assert "- version is required" in lines
    assert "- hardware is required" in lines
    assert "- min_instances is required" in lines
    assert "- max_instances: Must be greater than or equal to 0" in lines
    assert "- Additional property zzz is not allowed" in lines
    assert any(line.startswith("- name: Does not match pattern") for line in lines)


# 17: problems


def test_everything_wrong_with_a_prediction_is_said_at_once_and_nothing_runs():
    async def conversation(local):
        inputs = {"steps": 99, "format": "gif", "prompt": "?", "image": "data:image/png;base64,AA=="}
        body = {"version": VERSION, "input": inputs, "model": "x", "webhook": "ftp://x", "stream": "yes"}
        answer = await local.http.post("/v1/predictions", json=body)
        return answer, local.cog.attempts, (await local.http.get("/predictions")).json()["results"]

    answer, attempts, listed = talk(conversation)
    detail = is_problem(answer, 422, "Input validation failed")
    assert sorted(detail.splitlines()) == sorted(
        [
            "- Additional property model is not allowed",
            "- stream: Invalid type. Expected: boolean, given: string",
            "- webhook: 'ftp://x' is no http or https URL",
            "- input: chunks is required",
            "- input: Additional property prompt is not allowed",
            "- input.steps: Must be less than or equal to 50",
            '- input.format: input.format must be one of the following: "webp", "png"',
        ]
    )
    fields = answer.json()["invalid_fields"]
    assert {"type": "required", "field": "input", "description": "chunks is required"} in fields
    assert len(fields) == len(detail.splitlines())
    assert (attempts, listed) == ([], [])


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "- version is required\n- input is required\n"),
        ({"version": VERSION}, "- input is required\n"),
        ({"version": VERSION, "input": "x"}, "- input: Invalid type. Expected: object, given: string\n"),
        ({"version": 5, "input": {}}, "- version: Invalid type. Expected: string, given: integer\n"),
    ],
)
def test_a_body_that_lacks_something_is_refused(api, body, detail):
    assert is_problem(api.request("POST", "/v1/predictions", json=body), 422, "Input validation failed") == detail


@pytest.mark.parametrize("version", ["0" * 64, f"me/tiny:{'0' * 64}", "me/none", f"me/none:{VERSION}", "", "/", "x"])
def test_an_unknown_version_is_refused_in_replicates_words(api, version):
    answer = api.request("POST", "/v1/predictions", json={"version": version, "input": {"chunks": []}})
    assert is_problem(answer, 422, "Invalid version or not permitted") == (
        "The specified version does not exist (or perhaps you don't have permission to use it?)"
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nothing"),
        ("GET", "/nothing"),
        ("GET", "/v1/models/me/none"),
        ("POST", "/v1/models/me/none/predictions"),
        ("GET", "/v1/models/me/none/versions"),
        ("GET", f"/v1/models/me/tiny/versions/{'0' * 64}"),
        ("GET", "/v1/predictions/none"),
        ("POST", "/v1/predictions/none/cancel"),
        ("GET", "/v1/stream/none"),
        ("GET", "/v1/deployments/me/none"),
        ("PATCH", "/v1/deployments/me/none"),
        ("POST", "/v1/deployments/me/none/predictions"),
        ("GET", "/v1/collections/none"),
        ("GET", "/v1/trainings/none"),
        ("POST", "/v1/trainings/none/cancel"),
    ],
)
def test_what_is_not_there_is_a_problem_that_names_it(api, method, path):
    detail = is_problem(api.request(method, path, json={"input": {}} if method != "GET" else None), 404, "Not found")
    assert "none" in detail or "nothing" in detail or "0000" in detail


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models"),
        ("PATCH", "/v1/models/me/tiny"),
        ("DELETE", "/v1/models/me/tiny"),
        ("DELETE", f"/v1/models/me/tiny/versions/{VERSION}"),
        ("POST", f"/v1/models/me/tiny/versions/{VERSION}/trainings"),
        ("DELETE", "/v1/deployments/me/tiny"),
        ("PATCH", "/v1/deployments/me/tiny"),
    ],
)
def test_what_only_the_hosted_service_does_is_refused_with_the_reason(api, method, path):
    assert is_problem(api.request(method, path), 403, "Not possible here")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/predictions", {"GET", "HEAD", "POST"}),
        ("PUT", "/v1/models/me/tiny", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("GET", "/v1/predictions/x/cancel", {"POST"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(api, method, path, allowed):
    answer = api.request(method, path)
    is_problem(answer, 405, "Method not allowed")
    assert {name.strip() for name in answer.headers["allow"].split(",")} == allowed


@pytest.mark.parametrize(
    ("content", "content_type", "status", "title"),
    [
        ("{", "application/json", 400, "Bad request"),
        ("", "application/json", 400, "Bad request"),
        ("[]", "application/json", 400, "Bad request"),
        (b'{"input": "\xff"}', "application/json", 400, "Bad request"),
        ('{"input": "\\ud800"}', "application/json", 400, "Bad request"),
        ("[" * 100_000, "application/json", 400, "Bad request"),
        ('{"input": 1e999}', "application/json", 400, "Bad request"),
        ("{}", "text/plain", 415, "Unsupported media type"),
        ("{}", None, 415, "Unsupported media type"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(api, content, content_type, status, title):
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert is_problem(api.request("POST", "/v1/predictions", content=content, headers=headers), status, title)


def test_lists_nested_deeply_in_an_input_are_checked_like_others(api):
    body = f'{{"version": "{VERSION}", "input": {{"chunks": {"[" * 190}{"]" * 190}}}}}'
    answer = api.post("/v1/predictions", content=body, headers={"Content-Type": "application/json"})
    expected = "- input.chunks.0: Invalid type. Expected: string, given: array\n"
    assert is_problem(answer, 422, "Input validation failed") == expected


def test_a_body_as_deep_as_can_be_is_taken_and_shown_and_a_deeper_one_is_refused():
    async def conversation(local):
        statuses = set()
        for levels in range(1000):
            options = f"{'[' * levels}{']' * levels}"
            content = f'{{"version": "{VERSION}", "input": {{"chunks": [], "options": [{options}]}}}}'
            created = await local.http.post(
                "/v1/predictions", content=content, headers={"Content-Type": "application/json"}
            )
            statuses.add(created.status_code)
        listed = await local.http.get("/v1/predictions")
        return statuses, listed.status_code, len(listed.json()["results"])

    assert talk(conversation) == ({201, 400}, 200, 100)


def test_a_caller_who_leaves_in_the_middle_of_its_body_leaves_the_gateway_well(api):
    with socket.create_connection((api.base_url.host, api.base_url.port)) as caller:
        caller.sendall(
            b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
    assert api.get("/v1/predictions").status_code == 200


def test_a_body_of_several_megabytes_arrives_whole():
    chunk = "x" * 3_000_000

    async def conversation(local):
        return await local.ended(await local.create([chunk]))

    assert talk(conversation)["output"] == [chunk]


# Lists


def test_predictions_are_listed_newest_first_a_page_at_a_time_in_both_directions():
    async def conversation(local):
        created = [(await local.create([]))["id"] for _ in range(230)]
        forth, url = [], "/v1/predictions"
        while url:
            forth.append((await local.http.get(url)).json())
            await local.create([])  # what comes meanwhile changes no page that was begun
            url = forth[-1]["next"]
        back, url = [], forth[-1]["previous"]
        while url:
            back.append((await local.http.get(url)).json())
            url = back[-1]["previous"]
        return created, forth, back

    created, forth, back = talk(conversation)
    pages = [[prediction["id"] for prediction in page["results"]] for page in forth]
    assert [len(page) for page in pages] == [100, 100, 30]
    assert [identity for page in pages for identity in page] == created[::-1]
    assert forth[0]["previous"] is None
    assert [[prediction["id"] for prediction in page["results"]] for page in back[:2]] == [pages[1], pages[0]]
    assert len(back[2]["results"]) == 3  # those that came meanwhile


def test_predictions_are_listed_by_time():
    async def conversation(local):
        first = await local.create([])
        await asyncio.sleep(0.01)
        second = await local.create([])
        answers = [
            await local.http.get("/predictions", params={name: moment["created_at"]})
            for name in ("created_after", "created_before")
            for moment in (first, second)
        ]
        return [[prediction["id"] for prediction in answer.json()["results"]] for answer in answers], first, second

    listed, first, second = talk(conversation)
    assert listed == [[second["id"], first["id"]], [second["id"]], [], [first["id"]]]


@pytest.mark.parametrize(
    ("query", "title"),
    [("created_after=yesterday", "Bad request"), ("cursor=x", "Invalid cursor"), ("cursor=cD1hYmM=", "Invalid cursor")],
)
def test_a_list_that_makes_no_sense_is_refused(api, query, title):
    assert is_problem(api.request("GET", f"/v1/predictions?{query}"), 400, title)


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
