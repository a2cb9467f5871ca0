"""Transfers from a bucket that are cut, damaged or overtaken, against moto's S3 server."""

import gc
import hashlib
import os
import threading

import pytest

from cogsmith.errors import SourceError
from cogsmith.sources.hashing import checked_sha256
from cogsmith.sources.object_store import ObjectStoreLocation
from cogsmith.sources.silent import Silent
from cogsmith.sources.stores import buckets

from .s3_bucket import bring, put
from .s3_server import Rule
from .watcher import Watcher


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(buckets, "BLOCK_BYTES", 10_000)


@pytest.mark.slow
def test_a_transfer_that_is_cut_goes_on_in_the_next_run(s3, tmp_path, small_blocks):
    content = os.urandom(100_000)
    put(s3, big=content)
    s3.intervene(Rule("fail", range="bytes=50000-"))
    with pytest.raises(SourceError, match=r"cut at byte 50000 of 100000 \(HTTP 503\)"):
        bring(s3, "/big", tmp_path)
    (partial,) = tmp_path.rglob("*.partial")
    assert partial.read_bytes() == content[:50_000]
    s3.intervene()
    s3.forget()
    assert bring(s3, "/big", tmp_path) == {"big": content}
    assert sorted(request.range for request in s3.object_gets()) == [
        f"bytes={start}-{start + 9999}" for start in range(50_000, 100_000, 10_000)
    ]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_connection_that_breaks_is_mended_at_once(s3, tmp_path, small_blocks):
    content = os.urandom(100_000)
    put(s3, big=content)
    s3.intervene(*(Rule(what, range="bytes=30000-", times=1) for what in ("cut", "fail", "cut")))
    assert bring(s3, "/big", tmp_path) == {"big": content}
    assert s3.rules_left() == 0


def test_an_object_that_changes_midway_is_an_error_and_leaves_nothing(s3, tmp_path, small_blocks):
    put(s3, big=b"o" * 100_000)
    new = {"Bucket": s3.bucket, "Key": "big", "Body": b"n" * 100_000}
    s3.intervene(Rule(range="bytes=50000-", times=1, put=new))
    with pytest.raises(SourceError, match="big changed while it was fetched"):
        bring(s3, "/big", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert bring(s3, "/big", tmp_path) == {"big": b"n" * 100_000}


def test_an_object_that_becomes_shorter_is_an_error(s3, tmp_path, small_blocks):
    put(s3, big=b"o" * 100_000)
    location = ObjectStoreLocation(f"s3://{s3.bucket}/big", tmp_path)
    revision, files = location.list()
    put(s3, big=b"o" * 40_000)
    with pytest.raises(SourceError, match=r"cut at byte 40000 of 100000|changed while it was fetched"):
        location.fetch(revision, files, Silent())
    assert not [path for path in tmp_path.rglob("big") if path.is_file()]


def test_damaged_bytes_are_found_by_the_md5(s3, tmp_path):
    put(s3, big=os.urandom(1000))
    s3.intervene(Rule("garble", object_gets=True))
    with pytest.raises(SourceError, match="big came damaged"):
        bring(s3, "/big", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("way", ["kms", "parts"])
def test_an_etag_that_is_no_md5_is_not_taken_for_one(s3, tmp_path, way):
    content = os.urandom(5 * 2**20 + 7)
    client = s3.client
    if way == "kms":
        client.put_object(Bucket=s3.bucket, Key="big", Body=content, ServerSideEncryption="aws:kms")
    else:
        upload = client.create_multipart_upload(Bucket=s3.bucket, Key="big")["UploadId"]
        parts = []
        for number, part in enumerate([content[: 5 * 2**20], content[5 * 2**20 :]], 1):
            sent = client.upload_part(Bucket=s3.bucket, Key="big", PartNumber=number, UploadId=upload, Body=part)
            parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        client.complete_multipart_upload(Bucket=s3.bucket, Key="big", UploadId=upload, MultipartUpload={"Parts": parts})
    assert bring(s3, "/big", tmp_path) == {"big": content}


def test_one_file_that_fails_stops_the_others_where_they_are(s3, tmp_path, small_blocks):
    content = os.urandom(3_000_000)
    put(s3, big=content, forbidden=b"x")
    s3.intervene(forbid_once_the_other_is_on_its_way(tmp_path))
    with pytest.raises(SourceError, match="access was refused"):
        bring(s3, "", tmp_path)
    (partial,) = tmp_path.rglob(".big.partial")
    assert 0 < partial.stat().st_size < len(content)
    s3.intervene()
    assert bring(s3, "", tmp_path) == {"big": content, "forbidden": b"x"}


def forbid_once_the_other_is_on_its_way(folder):
    return Rule("forbid", path="*/forbidden", object_gets=True, after_gets=20, after_file=f"{folder}/**/.big.partial")


def test_a_transfer_that_is_stopped_leaves_no_threads_to_the_garbage_collector(s3, tmp_path, small_blocks):
    # It may run in the store's own thread, which would then wait for threads that wait for it.
    put(s3, big=os.urandom(3_000_000), forbidden=b"x")
    s3.intervene(forbid_once_the_other_is_on_its_way(tmp_path))
    before = set(threading.enumerate())
    gc.disable()
    try:
        with pytest.raises(SourceError, match="access was refused"):
            bring(s3, "", tmp_path)
        assert {thread.name for thread in set(threading.enumerate()) - before} <= {"fsspecIO"}
    finally:
        gc.enable()


def test_a_file_that_was_written_to_since_it_came_has_another_digest(s3, tmp_path):
    put(s3, **{"f/config.json": b"{}", "f/model.safetensors": b"12345678"})
    location = ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path)
    revision, files = location.list()
    places = location.fetch(revision, files, Silent())
    places["model.safetensors"].write_bytes(b"87654321")
    file = next(file for file in location.list()[1] if file.path == "model.safetensors")
    assert file.sha256 == hashlib.sha256(b"12345678").hexdigest()
    with pytest.raises(SourceError, match=r"model.safetensors is damaged"):
        checked_sha256(places["model.safetensors"], file, Silent(), cache=tmp_path)


def test_two_at_once_fetch_an_object_once(s3, tmp_path, small_blocks):
    content = os.urandom(100_000)
    put(s3, big=content)
    found = []
    threads = [threading.Thread(target=lambda: found.append(bring(s3, "/big", tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"big": content}] * 3
    assert len(s3.object_gets()) == 10


def test_progress_adds_up_to_the_size_also_after_a_cut(s3, tmp_path, small_blocks):
    put(s3, big=os.urandom(100_000), b2=os.urandom(5000))
    s3.intervene(Rule("cut", range="bytes=30000-", times=1))
    watcher = Watcher()
    location = ObjectStoreLocation(f"s3://{s3.bucket}", tmp_path)
    revision, files = location.list()
    location.fetch(revision, files, watcher)
    assert (watcher.total, watcher.done) == (105_000, 105_000)
