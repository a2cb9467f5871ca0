"""Replicate's HTTP API, point by point, as the official clients need it."""

import asyncio

import pytest

from .problems import is_problem
from .stand_in import SCHEMA, VERSION, talk

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
