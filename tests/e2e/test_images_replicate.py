"""Images from the official clients, their code untouched, to a tiny LLaVA behind a gateway that demands a token.

The truth is plain transformers on the same files.
"""

import httpx2
import pytest

from ..engine.vision import picture
from .clients.official import CLIENTS, running
from .conftest import DEMO_TOKEN
from .llava import NEW, data_uri, png, shown, truth

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("llava")]

TEXT = "First <image>, then <image>."


@pytest.fixture(scope="module", params=CLIENTS)
def client(request, demo, client_environments):
    with running(request.param, demo.url, client_environments, token=DEMO_TOKEN) as started:
        yield started


@pytest.fixture(scope="module")
def http(demo):
    headers = {"authorization": f"Bearer {DEMO_TOKEN}"}
    with httpx2.Client(base_url=f"{demo.url}/v1", headers=headers, timeout=60.0) as http:
        yield http


@pytest.fixture(scope="module")
def version(http):
    return http.get("/models/org/llava").json()["latest_version"]["id"]


@pytest.fixture
def pictures():
    # The second has more bytes than the hosted service takes as a data URI.
    return picture(0), picture(1, (400, 300))


@pytest.mark.parametrize(("strategy", "begin"), [("url", "http://127.0.0.1"), ("base64", "data:image/png;base64,")])
def test_files_reach_the_model_by_either_way(client, version, llava, pictures, tmp_path, strategy, begin):
    if (client.name, strategy) == ("javascript", "base64"):
        pytest.skip("replicate 1.4.0 then sends its own settings in the place of the inputs")
    files = [tmp_path / f"{place}.png" for place in range(2)]
    for file, image in zip(files, pictures, strict=True):
        file.write_bytes(png(image))
    inputs = {"prompt": TEXT, "max_new_tokens": NEW}
    paths = [str(file) for file in files]
    said, output, error = client.call(
        "predict_with_images", version=version, input=inputs, files=paths, strategy=strategy
    )
    assert error is None
    # A caller sees what it has sent.
    assert all(uri.startswith(begin) for uri in said)
    assert output == shown(truth(llava[0], TEXT, *pictures)[0])


def test_a_request_by_hand_with_data_uris_waits_for_the_answer(http, version, llava, pictures):
    body = {"version": version, "input": {"prompt": TEXT, "image": [*map(data_uri, pictures)], "max_new_tokens": NEW}}
    prediction = http.post("/predictions", json=body, headers={"prefer": "wait"}).json()
    assert "".join(prediction["output"]) == shown(truth(llava[0], TEXT, *pictures)[0])


def test_a_file_that_was_deleted_is_named(http, version):
    file = http.post("/files", files={"content": ("a.png", png(picture()), "image/png")}).json()
    http.delete(f"/files/{file['id']}")
    body = {"version": version, "input": {"prompt": "What?", "image": [file["urls"]["get"]]}}
    prediction = http.post("/predictions", json=body, headers={"prefer": "wait"}).json()
    assert prediction["status"] == "failed"
    assert f"{file['id']} is there no more" in prediction["error"]
