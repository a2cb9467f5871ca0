"""Folders and objects of a bucket, against moto's S3 server with boto3 as the independent client."""

import os

import pytest

from cogsmith.errors import SourceError
from cogsmith.sources.object_store import ObjectStoreLocation
from cogsmith.sources.silent import Silent

from .s3_bucket import bring, put
from .s3_server import Rule


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
    s3.forget()
    assert bring(s3, "/f", tmp_path) == first
    assert s3.object_gets() == []
    _, files = ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path).list()
    assert all(file.cached for file in files)


def test_the_second_time_a_single_object_is_not_read_at_all(s3, tmp_path):
    put(s3, **{"run/ep0-ba1-rank0.pt": b"weights"})
    bring(s3, "/run/ep0-ba1-rank0.pt", tmp_path)
    s3.forget()
    assert bring(s3, "/run/ep0-ba1-rank0.pt", tmp_path) == {"ep0-ba1-rank0.pt": b"weights"}
    assert {request.method for request in s3.log} == {"HEAD"}


def test_other_content_of_the_same_size_is_another_revision_and_is_fetched(s3, tmp_path):
    put(s3, **{"f/a": b"old", "f/b": b"same"})
    before, _ = ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path).list()
    assert ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path).list()[0] == before
    bring(s3, "/f", tmp_path)
    put(s3, **{"f/a": b"new"})
    assert ObjectStoreLocation(f"s3://{s3.bucket}/f", tmp_path).list()[0] != before
    s3.forget()
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
    s3.intervene(Rule("forbid"))
    with pytest.raises(SourceError, match="access was refused") as caught:
        bring(s3, path, tmp_path)
    assert "AWS_ACCESS_KEY_ID" in caught.value.fix
    assert "secret-in-the-answer" not in str(caught.value)
    assert "very-secret" not in str(caught.value)


def test_a_refused_read_is_not_tried_again(s3, tmp_path):
    put(s3, **{"f/a": b"1"})
    s3.intervene(Rule("forbid", object_gets=True))
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
