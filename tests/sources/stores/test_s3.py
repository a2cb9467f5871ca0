"""Folders and objects of a bucket, against moto's S3 server with boto3 as the independent client."""

import hashlib
import os
import threading
import time

import pytest

from cogsmith.errors import SourceError
from cogsmith.sources.hashing import checked_sha256
from cogsmith.sources.object_store import ObjectStoreLocation
from cogsmith.sources.silent import Silent
from cogsmith.sources.stores import buckets


def put(s3, **objects):
    for key, content in objects.items():
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=content)


def bring(s3, path, cache, **settings):
    """Look at a place of the test's bucket and fetch all of it; return content by path."""
    location = ObjectStoreLocation(f"s3://{s3.bucket}{path}", cache)
    revision, files = location.list()
    return {name: place.read_bytes() for name, place in location.fetch(revision, files, Silent()).items()}


def test_a_folder_is_listed_with_all_below_it_and_without_what_is_hidden(s3, tmp_path):
    put(s3, **{"a/x.json": b"{}", "a/sub/deep/y": b"yy", "a/": b"", "a/sub/": b"", "a/made_$folder$": b""})
    put(s3, **{"a/.hidden": b"h", "a/.git/config": b"h", "a/ep1/.metadata": b"mm", "ab/z": b"z", "a/empty.txt": b""})
    _, files = ObjectStoreLocation(f"s3://{s3.bucket}/a", tmp_path).list()
    assert [(file.path, file.size) for file in files] == [
        ("empty.txt", 0),
        ("ep1/.metadata", 2),
        ("sub/deep/y", 2),
        ("x.json", 2),
    ]


def test_a_whole_bucket_is_a_folder(s3, tmp_path):
    put(s3, **{"a": b"1", "b/c": b"2"})
    assert bring(s3, "", tmp_path) == {"a": b"1", "b/c": b"2"}


def test_what_comes_is_what_was_put(s3, tmp_path):
    content = {f"f/{number}": os.urandom(number * 1000) for number in range(12)}
    put(s3, **content)
    assert bring(s3, "/f", tmp_path) == {key.removeprefix("f/"): value for key, value in content.items()}


def test_the_second_time_no_object_is_read(s3, tmp_path):
    put(s3, **{"f/a": b"aaa", "f/latest.symlink": b"f/a"})
    first = bring(s3, "/f", tmp_path)
    assert len(s3.object_gets()) == 2
    s3.log.clear()
    assert bring(s3, "/f", tmp_path) == first
    assert s3.object_gets() == []
    _, files = ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path).list()
    assert all(file.cached for file in files)


def test_the_second_time_a_single_object_is_not_read_at_all(s3, tmp_path):
    put(s3, **{"run/ep0-ba1-rank0.pt": b"weights"})
    bring(s3, "/run/ep0-ba1-rank0.pt", tmp_path)
    s3.log.clear()
    assert bring(s3, "/run/ep0-ba1-rank0.pt", tmp_path) == {"ep0-ba1-rank0.pt": b"weights"}
    assert {request.method for request in s3.log} == {"HEAD"}


def test_other_content_of_the_same_size_is_another_revision_and_is_fetched(s3, tmp_path):
    put(s3, **{"f/a": b"old", "f/b": b"same"})
    before, _ = ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path).list()
    assert ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path).list()[0] == before
    bring(s3, "/f", tmp_path)
    put(s3, **{"f/a": b"new"})
    assert ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path).list()[0] != before
    s3.log.clear()
    assert bring(s3, "/f", tmp_path)["a"] == b"new"
    assert [request.path for request in s3.object_gets()] == [f"/{s3.bucket}/f/a"]


def test_fetching_a_revision_that_is_gone_is_an_error(s3, tmp_path):
    put(s3, **{"f/a": b"old"})
    revision, files = ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path).list()
    put(s3, **{"f/a": b"new"})
    with pytest.raises(SourceError, match="no longer what was resolved"):
        ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path).fetch(revision, files, Silent())


@pytest.mark.parametrize("text", ["run/ep1-ba2-rank0.pt", "ep1-ba2-rank0.pt", "s3://{bucket}/run/ep1-ba2-rank0.pt\n"])
def test_a_missing_object_is_looked_for_as_a_link(s3, tmp_path, text):
    link = text.format(bucket=s3.bucket).encode()
    put(s3, **{"run/ep1-ba2-rank0.pt": b"weights", "run/latest-rank0.pt.symlink": link})
    assert bring(s3, "/run/latest-rank0.pt", tmp_path) == {"ep1-ba2-rank0.pt": b"weights"}


def test_a_link_may_name_a_folder_or_another_link(s3, tmp_path):
    put(s3, **{"run/ep1/.metadata": b"m", "run/ep1/__0_0.distcp": b"d", "run/one.symlink": b"run/ep1"})
    put(s3, **{"run/latest.symlink": b"run/one"})
    assert bring(s3, "/run/latest", tmp_path) == {".metadata": b"m", "__0_0.distcp": b"d"}


def test_in_a_folder_a_link_is_the_file_that_it_names(s3, tmp_path):
    put(s3, **{"run/ep1.pt": b"one", "run/latest.pt.symlink": b"run/ep1.pt", "run/other.symlink": b"elsewhere/x"})
    assert bring(s3, "/run", tmp_path) == {"ep1.pt": b"one", "latest.pt": b"one", "other.symlink": b"elsewhere/x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"run/gone.pt", "names 'run/gone.pt', and there is no such object"),
        (b"s3://another-bucket/x.pt", "leads out of its bucket"),
        (b"run/latest.pt", "links lead from one to the next"),
        (b"", "there is no such object"),
    ],
)
def test_a_link_that_leads_nowhere_is_an_error(s3, tmp_path, text, message):
    put(s3, **{"run/latest.pt.symlink": text})
    with pytest.raises(SourceError, match=message):
        bring(s3, "/run/latest.pt", tmp_path)


def test_names_that_are_no_paths_are_refused(s3, tmp_path):
    put(s3, **{"f/a": b"1", "f/x\\y": b"2"})
    with pytest.raises(SourceError, match="names that are no paths"):
        bring(s3, "/f", tmp_path)


def test_a_name_with_dots_cannot_lead_out_of_the_folder(s3, tmp_path):
    put(s3, **{"f/../../evil": b"1", "f/a": b"2"})
    assert bring(s3, "/f", tmp_path) == {"a": b"2"}


def test_a_missing_key_names_what_is_near(s3, tmp_path):
    put(s3, **{"run/ep1-ba2-rank0.pt": b"w"})
    with pytest.raises(SourceError, match=r"run/ep1-ba3-rank0.pt is not there") as caught:
        bring(s3, "/run/ep1-ba3-rank0.pt", tmp_path)
    assert "there are ep1-ba2-rank0.pt" in caught.value.fix


def test_a_missing_bucket_is_told_apart(s3, tmp_path):
    with pytest.raises(SourceError, match="s3://no-such-bucket-here: there is no such bucket"):
        ObjectStoreLocation("s3://no-such-bucket-here", tmp_path).list()
    with pytest.raises(SourceError, match="there is no such bucket"):
        ObjectStoreLocation("s3://no-such-bucket-here/x", tmp_path).list()


@pytest.mark.parametrize("path", ["/f", "/f/a"])
def test_a_refusal_says_what_to_do_and_no_secret(s3, tmp_path, path):
    put(s3, **{"f/a": b"1"})
    s3.intervene = lambda request: "forbid"
    with pytest.raises(SourceError, match="access was refused") as caught:
        bring(s3, path, tmp_path)
    assert "AWS_ACCESS_KEY_ID" in caught.value.fix
    assert "secret-in-the-answer" not in str(caught.value)
    assert "very-secret" not in str(caught.value)


def test_a_refused_read_is_not_tried_again(s3, tmp_path):
    put(s3, **{"f/a": b"1"})
    s3.intervene = lambda request: "forbid" if request.is_object_get else None
    with pytest.raises(SourceError, match="access was refused"):
        bring(s3, "/f", tmp_path)
    assert len(s3.object_gets()) == 1


def test_without_credentials_a_public_bucket_is_read(s3, tmp_path, monkeypatch):
    put(s3, private=b"2")
    s3.client.put_object(Bucket=s3.bucket, Key="f/a", Body=b"1", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert bring(s3, "/f", tmp_path) == {"a": b"1"}
    with pytest.raises(SourceError, match="access was refused"):
        bring(s3, "/private", tmp_path)


def test_half_a_credential_is_an_error_that_says_so(s3, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceError, match="needs credentials"):
        bring(s3, "/f", tmp_path)


def test_a_server_that_is_not_there(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="cannot be reached"):
        bring(s3, "/f", tmp_path)


def test_amazons_own_name_for_the_endpoint_works_too(s3, tmp_path, monkeypatch):
    put(s3, **{"f/a": b"1"})
    monkeypatch.delenv("S3_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    assert bring(s3, "/f", tmp_path) == {"a": b"1"}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(buckets, "BLOCK_BYTES", 10_000)


@pytest.mark.slow
def test_a_transfer_that_is_cut_goes_on_in_the_next_run(s3, tmp_path, small_blocks):
    content = os.urandom(100_000)
    put(s3, big=content)
    s3.intervene = lambda request: "fail" if request.range.startswith("bytes=50000-") else None
    with pytest.raises(SourceError, match=r"cut at byte 50000 of 100000 \(HTTP 503\)"):
        bring(s3, "/big", tmp_path)
    (partial,) = tmp_path.rglob("*.partial")
    assert partial.read_bytes() == content[:50_000]
    s3.intervene = lambda request: None
    s3.log.clear()
    assert bring(s3, "/big", tmp_path) == {"big": content}
    assert sorted(request.range for request in s3.object_gets()) == [
        f"bytes={start}-{start + 9999}" for start in range(50_000, 100_000, 10_000)
    ]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_connection_that_breaks_is_mended_at_once(s3, tmp_path, small_blocks):
    content = os.urandom(100_000)
    put(s3, big=content)
    left = ["cut", "fail", "cut"]
    s3.intervene = lambda request: left.pop() if left and request.range.startswith("bytes=30000-") else None
    assert bring(s3, "/big", tmp_path) == {"big": content}
    assert not left


def test_an_object_that_changes_midway_is_an_error_and_leaves_nothing(s3, tmp_path, small_blocks):
    put(s3, big=b"o" * 100_000)

    def change(request):
        if request.range.startswith("bytes=50000-"):
            s3.intervene = lambda request: None
            put(s3, big=b"n" * 100_000)

    s3.intervene = change
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
    s3.intervene = lambda request: "garble" if request.is_object_get else None
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

    def forbid_once_the_other_is_on_its_way(request):
        if request.is_object_get and "forbidden" in request.path:
            while not list(tmp_path.rglob(".big.partial")) or len(s3.object_gets()) < 20:
                time.sleep(0.01)
            return "forbid"
        return None

    s3.intervene = forbid_once_the_other_is_on_its_way
    with pytest.raises(SourceError, match="access was refused"):
        bring(s3, "", tmp_path)
    (partial,) = tmp_path.rglob(".big.partial")
    assert 0 < partial.stat().st_size < len(content)
    s3.intervene = lambda request: None
    assert bring(s3, "", tmp_path) == {"big": content, "forbidden": b"x"}


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
    left = ["cut"]
    s3.intervene = lambda request: left.pop() if left and request.range.startswith("bytes=30000-") else None
    watcher = Watcher()
    location = ObjectStoreLocation(f"s3://{s3.bucket}", tmp_path)
    revision, files = location.list()
    location.fetch(revision, files, watcher)
    assert (watcher.total, watcher.done) == (105_000, 105_000)


class Watcher(Silent):
    total = done = 0

    def task(self, label, total=None, *, unit="bytes"):
        self.total = total
        return super().task(label, total, unit=unit)

    def advance(self, amount):
        self.done += amount
