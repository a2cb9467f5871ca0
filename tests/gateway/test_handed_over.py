"""Uploaded files in the place of their URLs."""

import base64
import io

import pytest
from starlette.datastructures import Headers, UploadFile

from cogsmith.errors import ServeError
from cogsmith.gateway.files import FileStore
from cogsmith.gateway.handed_over import with_files

FILE = {"type": "string", "format": "uri"}
SCHEMA = {
    "components": {
        "schemas": {
            "Input": {
                "properties": {
                    "image": {"type": "array", "items": FILE},
                    "mask": FILE,
                    "prompt": {"type": "string"},
                }
            }
        }
    }
}
CONTENT = bytes(range(256))
DATA = "base64," + base64.b64encode(CONTENT).decode()


@pytest.fixture
def store():
    store = FileStore()
    yield store
    store.close()


def kept(store, kind="image/png"):
    upload = UploadFile(io.BytesIO(CONTENT), filename="a.png", headers=Headers({"content-type": kind}))
    return store.add(upload, {}).id


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/v1/files/{}", "https://a.b/files/{}/download"])
def test_a_model_is_given_the_file_that_an_input_names(store, url):
    url = url.format(kept(store))
    inputs = {"mask": url, "image": [url, "http://elsewhere/a.png"], "prompt": url, "unknown": url}
    data = f"data:image/png;{DATA}"
    given = with_files(inputs, SCHEMA, store)
    # A prompt is a text, also where it is the URL of a file.
    assert given == inputs | {"mask": data, "image": [data, "http://elsewhere/a.png"]}


def test_a_type_loses_its_parameters(store):
    url = f"http://a/v1/files/{kept(store, 'text/plain; charset=utf-8')}"
    assert with_files({"mask": url}, SCHEMA, store) == {"mask": f"data:text/plain;{DATA}"}


def test_a_file_of_another_server_is_its_own(store):
    inputs = {"mask": f"https://api.example/v1/files/{'0' * 40}"}
    assert with_files(inputs, SCHEMA, store) == inputs


def test_a_file_that_was_deleted_is_named(store):
    identity = kept(store)
    store.remove(identity)
    with pytest.raises(ServeError, match=rf"{identity} is there no more"):
        with_files({"mask": f"http://a/v1/files/{identity}"}, SCHEMA, store)
