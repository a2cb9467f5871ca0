"""What Replicate's HTTP API refuses, and in which words."""

import socket

import pytest

from .problems import is_problem
from .stand_in import VERSION, talk

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
