"""A folder put into a bucket, against moto's S3 server with boto3 as the independent client."""

import random

import pytest

from cogsmith.errors import SourceError, UserError
from cogsmith.sources.object_store import upload
from cogsmith.sources.silent import Silent

from .s3_server import Rule
from .watcher import Watcher

FILES = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"11",
    "model-00002-of-00002.safetensors": b"222",
    "model.safetensors.index.json": b"{index}",
    "tokenizer.json": b"{t}",
    "chat_templates/tool.jinja": b"{{ x }}",
}


@pytest.fixture
def folder(tmp_path):
    for path, content in FILES.items():
        (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / path).write_bytes(content)
    return tmp_path / "out"


def stored(s3, prefix=""):
    found = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix=prefix).get("Contents", [])
    keys = [entry["Key"] for entry in found]
    return {key: s3.client.get_object(Bucket=s3.bucket, Key=key)["Body"].read() for key in keys}


def written(s3):
    return [
        (request.method, request.path.split("/", 2)[-1]) for request in s3.log if request.method in ("PUT", "DELETE")
    ]


def test_all_files_arrive_weights_first_and_config_json_last(s3, folder):
    uris = upload(folder, f"s3://{s3.bucket}/models/new/", reporter=Silent())
    names = [path.rpartition("models/new/")[2] for method, path in written(s3)]
    assert stored(s3) == {f"models/new/{path}": content for path, content in FILES.items()}
    assert [name.endswith(".safetensors") for name in names] == [True] * 2 + [False] * 4
    assert names[-1] == "config.json"
    assert uris[-1] == f"s3://{s3.bucket}/models/new/config.json"
    assert len(uris) == len(FILES)


def test_what_is_there_is_not_touched_without_force(s3, folder):
    s3.client.put_object(Bucket=s3.bucket, Key="new/notes.txt", Body=b"mine")
    s3.forget()
    with pytest.raises(UserError, match=r"is not empty: there are notes.txt, but no config.json") as caught:
        upload(folder, f"s3://{s3.bucket}/new", reporter=Silent())
    assert "--force" in caught.value.fix
    assert written(s3) == []


def test_a_neighbour_whose_name_begins_alike_is_not_in_the_way(s3, folder):
    s3.client.put_object(Bucket=s3.bucket, Key="newer/config.json", Body=b"other")
    upload(folder, f"s3://{s3.bucket}/new", reporter=Silent())
    assert stored(s3, "newer/") == {"newer/config.json": b"other"}


def test_force_removes_the_old_checkpoint_config_json_first_and_leaves_the_rest(s3, folder):
    old = {"config.json": b"old", "model.safetensors": b"old", "pytorch_model.bin": b"old", "tokenizer.model": b"old"}
    kept = {"notes.txt": b"mine", "runs/config.json": b"mine", "tokenizer.json": b"overwritten"}
    for path, content in {**old, **kept}.items():
        s3.client.put_object(Bucket=s3.bucket, Key=f"new/{path}", Body=content)
    s3.forget()
    upload(folder, f"s3://{s3.bucket}/new", force=True, reporter=Silent())
    assert stored(s3, "new/") == {f"new/{path}": content for path, content in {**kept, **FILES}.items()}
    assert written(s3)[0] == ("DELETE", "new/config.json")


def test_an_upload_that_fails_leaves_no_checkpoint(s3, folder):
    s3.client.put_object(Bucket=s3.bucket, Key="new/config.json", Body=b"old")
    s3.intervene(Rule("forbid", method="PUT", path="*tokenizer*"))
    with pytest.raises(SourceError, match="access was refused"):
        upload(folder, f"s3://{s3.bucket}/new", force=True, reporter=Silent())
    s3.intervene()
    assert "new/config.json" not in stored(s3)


def test_an_upload_that_arrives_short_is_an_error(s3, folder):
    shorter = {"Bucket": s3.bucket, "Key": "new/model.safetensors.index.json", "Body": b""}
    s3.intervene(Rule(method="HEAD", path="*index*", times=1, put=shorter))
    with pytest.raises(SourceError, match="0 bytes arrived of 7 bytes"):
        upload(folder, f"s3://{s3.bucket}/new", reporter=Silent())


def test_a_bucket_that_is_not_there(s3, folder):
    with pytest.raises(SourceError, match="there is no such bucket"):
        upload(folder, "s3://no-such-bucket-here/new", reporter=Silent())


def test_the_web_cannot_be_written_to(folder):
    with pytest.raises(SourceError, match="cannot be written to"):
        upload(folder, "https://example.com/new", reporter=Silent())


# From 100 MiB on, s3fs sends a file in parts of 50.
LARGE = 101 * 2**20 + 7


@pytest.mark.slow
def test_a_large_file_arrives_in_parts_and_whole(s3, tmp_path):
    content = random.Random(0).randbytes(LARGE)
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_bytes(b"{}")
    watcher = Watcher()
    upload(tmp_path, f"s3://{s3.bucket}/new", reporter=watcher)
    parts = [request for request in s3.log if request.method == "PUT" and "partNumber" in request.query]
    assert len(parts) == 3
    assert stored(s3) == {"new/model.safetensors": content, "new/config.json": b"{}"}
    assert watcher.done == LARGE + 2


@pytest.mark.slow
def test_an_upload_whose_part_fails_leaves_neither_a_checkpoint_nor_parts(s3, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(LARGE))
    (tmp_path / "config.json").write_bytes(b"{}")
    s3.intervene(Rule("forbid", method="PUT", path="*/model.safetensors"))
    with pytest.raises(SourceError, match="access was refused"):
        upload(tmp_path, f"s3://{s3.bucket}/new", reporter=Silent())
    s3.intervene()
    assert stored(s3) == {}
    assert s3.client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", []) == []
