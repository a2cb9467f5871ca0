"""Uploaded files, as the official clients send and read them."""

import hashlib
import json
import resource

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from cogsmith.gateway.files import FileRoutes, FileStore
from cogsmith.gateway.problems import HANDLERS

CONTENT = bytes(range(256)) * 10


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = FileStore(max_bytes=5000)
    yield store
    store.close()


@pytest.fixture
def client(store):
    return TestClient(Starlette(routes=[Mount("/v1", routes=FileRoutes(store).routes())], exception_handlers=HANDLERS))


def upload(client, name="a.bin", content=CONTENT, **form):
    return client.post("/v1/files", files={"content": (name, content, "image/png")}, **form)


def test_a_file_comes_back_as_it_was_with_what_the_clients_model_of_it_needs(client):
    created = upload(client, data={"metadata": '{"a": [1]}'})
    assert created.status_code == 201
    file = created.json()
    assert file == client.get(f"/v1/files/{file['id']}").json()
    assert (file["name"], file["content_type"], file["size"], file["metadata"]) == (
        "a.bin",
        "image/png",
        2560,
        {"a": [1]},
    )
    assert file["checksums"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert file["checksums"]["md5"] == file["etag"] == hashlib.md5(CONTENT).hexdigest()
    assert file["urls"]["get"] == f"http://testserver/v1/files/{file['id']}"
    assert file["expires_at"] is None
    downloaded = client.get(f"{file['urls']['get']}/download")
    assert (downloaded.content, downloaded.headers["content-type"]) == (CONTENT, "image/png")


def test_the_javascript_client_sends_metadata_as_a_part_with_a_type(client):
    parts = [
        ("content", ("a.txt", b"hello", "text/plain")),
        ("metadata", ("blob", json.dumps({"x": 1}).encode(), "application/json")),
    ]
    assert client.post("/v1/files", files=parts).json()["metadata"] == {"x": 1}


def test_files_are_listed_newest_first_and_deleted(client):
    ids = [upload(client, content=b"x").json()["id"] for _ in range(3)]
    assert [file["id"] for file in client.get("/v1/files").json()["results"]] == ids[::-1]
    assert client.delete(f"/v1/files/{ids[1]}").status_code == 204
    assert [file["id"] for file in client.get("/v1/files").json()["results"]] == [ids[2], ids[0]]
    for method in ("GET", "DELETE"):
        missing = client.request(method, f"/v1/files/{ids[1]}")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"json": {}}, "content"),
        ({"data": {"content": "not a file"}}, "content"),
        ({"files": {"other": b"x"}}, "content"),
        ({"files": {"content": b"x"}, "data": {"metadata": "no json"}}, "metadata"),
        ({"files": {"content": b"x"}, "data": {"metadata": "[1]"}}, "metadata"),
        ({"files": {"content": b"x"}, "data": {"metadata": '{"a":' + "[" * 100_000}}, "metadata"),
        ({"files": {"content": b"x"}, "data": {"metadata": '{"a": "\\ud800"}'}}, "metadata"),
        ({"files": {"content": b"x"}, "data": {"metadata": '{"a": NaN}'}}, "metadata"),
    ],
)
def test_a_bad_form_is_refused_with_the_field(client, options, field):
    answer = client.post("/v1/files", **options)
    assert answer.status_code == 422
    assert [fault["field"] for fault in answer.json()["invalid_fields"]] == [field]
    assert client.get("/v1/files").json()["results"] == []


def test_there_is_a_limit_to_all_files_together(client):
    assert upload(client).status_code == 201
    assert upload(client).status_code == 413
    client.delete(f"/v1/files/{client.get('/v1/files').json()['results'][0]['id']}")
    assert upload(client).status_code == 201


@pytest.mark.parametrize("size", [2560, 3_000_000])  # one is kept in memory while it is read, one is not
def test_a_full_disk_is_said_and_leaves_no_half_of_a_file(tmp_path, monkeypatch, size):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = FileStore()
    client = TestClient(Starlette(routes=FileRoutes(store).routes(), exception_handlers=HANDLERS))
    kept = client.post("/files", files={"content": b"x"}).json()["id"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a full disk does, it fails what is written
    try:
        answer = client.post("/files", files={"content": b"x" * size})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (answer.status_code, answer.json()["status"]) == (507, 507)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [kept]
    store.close()


def test_nothing_is_left_at_the_end(client, store, tmp_path):
    upload(client)
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [CONTENT]
    store.close()
    assert list(tmp_path.iterdir()) == []
