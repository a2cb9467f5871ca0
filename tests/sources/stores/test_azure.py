"""Azure's store, against Azurite, Microsoft's own emulator, with its own Python client as the independent one."""

import os
import socket
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from cogsmith.errors import SourceError
from cogsmith.sources.object_store import ObjectStoreLocation, upload
from cogsmith.sources.silent import Silent
from cogsmith.sources.stores import buckets

from ...e2e.clients import environments
from .brought import bring

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("azurite")]

# Azurite's published account: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
OTHER_KEY = "QUJD" + KEY[4:]
START_SECONDS = 60


@pytest.fixture(scope="module")
def azurite(pytestconfig, tmp_path_factory):
    """The emulator's address."""
    node, packages = environments.node(pytestconfig.cache.mkdir("clients"), Path(__file__).parent / "azurite")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("azurite")
    program = packages / "azurite/dist/src/blob/main.js"
    options = ["--blobPort", str(port), "--location", str(folder), "--silent", "--skipApiVersionCheck"]
    server = subprocess.Popen([node, program, *options, "--disableTelemetry"], stdout=subprocess.DEVNULL)
    try:
        wait_for(port, server)
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        server.terminate()
        server.wait()


def wait_for(port, server):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, "Azurite has ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("Azurite does not answer")


@pytest.fixture
def container(azurite, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection(azurite))
    return BlobServiceClient.from_connection_string(connection(azurite)).create_container(f"c-{uuid.uuid4().hex[:12]}")


def connection(address, key=KEY):
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={address};"


def test_a_folder_is_fetched_once(container, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "BLOCK_BYTES", 10_000)
    content = {"config.json": b"{}", "sub/weights.bin": os.urandom(35_000), "empty": b""}
    for path, data in content.items():
        container.upload_blob(f"run/{path}", data)
    container.upload_blob("run/.hidden", b"x")
    container.upload_blob("runner/other", b"x")
    uri = f"az://{container.container_name}/run"
    assert bring(uri, tmp_path) == content
    assert all(file.cached for file in ObjectStoreLocation(uri, tmp_path).list()[1])
    assert bring(uri.replace("az:", "azure:"), tmp_path / "other") == content


def test_one_object_and_a_link_to_it(container, tmp_path):
    container.upload_blob("run/ep1.pt", b"weights")
    container.upload_blob("run/latest.pt.symlink", b"run/ep1.pt")
    for name in ("ep1.pt", "latest.pt"):
        assert bring(f"az://{container.container_name}/run/{name}", tmp_path) == {"ep1.pt": b"weights"}


def test_changed_content_is_fetched(container, tmp_path):
    uri = f"az://{container.container_name}/a"
    container.upload_blob("a", b"old")
    before, _ = ObjectStoreLocation(uri, tmp_path).list()
    assert bring(uri, tmp_path) == {"a": b"old"}
    container.upload_blob("a", b"new", overwrite=True)
    assert ObjectStoreLocation(uri, tmp_path).list()[0] != before
    assert bring(uri, tmp_path) == {"a": b"new"}


def test_the_md5_that_the_store_gives_is_checked(container, tmp_path, monkeypatch):
    container.upload_blob("a", b"content")
    location = ObjectStoreLocation(f"az://{container.container_name}/a", tmp_path)
    revision, files = location.list()
    monkeypatch.setattr(buckets.Bucket, "_block", lambda self, stored, begin, end: b"CONTENT"[begin:end])
    with pytest.raises(SourceError, match="a came damaged"):
        location.fetch(revision, files, Silent())


def test_what_is_missing_and_what_is_refused(azurite, container, tmp_path, monkeypatch):
    container.upload_blob("run/ep1.pt", b"weights")
    with pytest.raises(SourceError, match=r"run/ep2.pt is not there"):
        bring(f"az://{container.container_name}/run/ep2.pt", tmp_path)
    with pytest.raises(SourceError, match="there is no such bucket"):
        bring("az://no-such-container/x", tmp_path)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection(azurite, OTHER_KEY))
    with pytest.raises(SourceError, match="access was refused") as caught:
        bring(f"az://{container.container_name}/run", tmp_path)
    assert OTHER_KEY not in str(caught.value)


def test_an_upload(container, tmp_path):
    for path in ("config.json", "model.safetensors"):
        (tmp_path / path).write_bytes(path.encode())
    uri = f"az://{container.container_name}/new"
    upload(tmp_path, uri, reporter=Silent())
    upload(tmp_path, uri, force=True, reporter=Silent())
    stored = {blob.name: container.download_blob(blob.name).readall() for blob in container.list_blobs()}
    assert stored == {f"new/{path}": path.encode() for path in ("config.json", "model.safetensors")}
