"""Google's store, against gcp-storage-emulator with its JSON interface as the independent client; HMAC against moto."""

import os
import socket
import uuid
from urllib.parse import quote

import httpx2
import pytest
from gcp_storage_emulator.server import create_server

from cogsmith.errors import SourceError
from cogsmith.sources.object_store import ObjectStoreLocation, upload
from cogsmith.sources.silent import Silent
from cogsmith.sources.stores import buckets, credentials

from .brought import bring


class Emulator:
    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self._server = create_server("127.0.0.1", int(self.url.rpartition(":")[2]), in_memory=True)
        self._server.start()
        self.bucket = ""

    def close(self):
        self._server.stop()

    def make_bucket(self):
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        httpx2.post(f"{self.url}/storage/v1/b", json={"name": self.bucket}).raise_for_status()

    def put(self, key, content):
        address = f"{self.url}/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={quote(key, safe='')}"
        httpx2.post(address, content=content).raise_for_status()

    def stored(self):
        items = httpx2.get(f"{self.url}/storage/v1/b/{self.bucket}/o").json().get("items", [])
        address = f"{self.url}/storage/v1/b/{self.bucket}/o"
        return {
            item["name"]: httpx2.get(f"{address}/{quote(item['name'], safe='')}?alt=media").content for item in items
        }


@pytest.fixture(scope="module")
def running():
    emulator = Emulator()
    yield emulator
    emulator.close()


@pytest.fixture
def gs(running, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
    running.make_bucket()
    return running


def test_a_folder_is_fetched_once(gs, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "BLOCK_BYTES", 10_000)
    content = {"config.json": b"{}", "sub/weights.bin": os.urandom(35_000)}
    for path, data in content.items():
        gs.put(f"run/{path}", data)
    gs.put("run/.hidden", b"x")
    gs.put("runner/other", b"x")
    assert bring(f"gs://{gs.bucket}/run", tmp_path) == content
    _, files = ObjectStoreLocation(f"gs://{gs.bucket}/run", tmp_path).list()
    assert all(file.cached for file in files)


def test_one_object_and_a_link_to_it(gs, tmp_path):
    gs.put("run/ep1.pt", b"weights")
    gs.put("run/latest.pt.symlink", b"run/ep1.pt")
    assert bring(f"gs://{gs.bucket}/run/ep1.pt", tmp_path) == {"ep1.pt": b"weights"}
    assert bring(f"gs://{gs.bucket}/run/latest.pt", tmp_path) == {"ep1.pt": b"weights"}


def test_changed_content_is_fetched(gs, tmp_path):
    gs.put("a", b"old")
    before, _ = ObjectStoreLocation(f"gs://{gs.bucket}/a", tmp_path).list()
    assert bring(f"gs://{gs.bucket}/a", tmp_path) == {"a": b"old"}
    gs.put("a", b"new")
    assert ObjectStoreLocation(f"gs://{gs.bucket}/a", tmp_path).list()[0] != before
    assert bring(f"gs://{gs.bucket}/a", tmp_path) == {"a": b"new"}


def test_the_md5_that_the_store_gives_is_checked(gs, tmp_path, monkeypatch):
    gs.put("a", b"content")
    location = ObjectStoreLocation(f"gs://{gs.bucket}/a", tmp_path)
    revision, files = location.list()
    monkeypatch.setattr(buckets.Bucket, "_block", lambda self, stored, begin, end: b"CONTENT"[begin:end])
    with pytest.raises(SourceError, match="a came damaged"):
        location.fetch(revision, files, Silent())


def test_a_missing_object_and_a_missing_bucket(gs, tmp_path):
    gs.put("run/ep1.pt", b"weights")
    with pytest.raises(SourceError, match=r"run/ep2.pt is not there"):
        bring(f"gs://{gs.bucket}/run/ep2.pt", tmp_path)
    with pytest.raises(SourceError, match="there is no such bucket"):
        bring("gs://no-such-bucket-here/x", tmp_path)


def test_an_upload(gs, tmp_path):
    for path in ("config.json", "model.safetensors"):
        (tmp_path / path).write_bytes(path.encode())
    upload(tmp_path, f"gs://{gs.bucket}/new", reporter=Silent())
    assert gs.stored() == {f"new/{path}": path.encode() for path in ("config.json", "model.safetensors")}


def test_an_hmac_key_goes_through_the_s3_interface(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(credentials, "GCS_S3_ENDPOINT", s3.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("GCS_KEY", "GOOG1KEY")
    monkeypatch.setenv("GCS_SECRET", "hmac-secret")
    s3.client.put_object(Bucket=s3.bucket, Key="f/a", Body=b"1")
    s3.forget()
    assert bring(f"gs://{s3.bucket}/f", tmp_path) == {"a": b"1"}
    sent = [request.authorization for request in s3.log]
    assert sent
    assert all("Credential=GOOG1KEY/" in header for header in sent)
    assert not any("hmac-secret" in header for header in sent)
