"""`cogsmith embed` and `client.embed` over a tiny encoder in this process, against plain transformers."""

import asyncio
import json

import numpy
import pytest

from cogsmith.client import connect
from cogsmith.errors import DeadlineExceeded, OperationFailed, RequestRejected, UnsupportedByServer

from ..engine.encoders import ENCODERS, plain_states, save
from ..engine.models import byte_tokenizer, tiny_llama

TEXTS = ["a cat sat", "a dog ran away", "x"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A checkpoint folder, and the plain model of it."""
    folder = tmp_path_factory.mktemp("embed") / "bert"
    config = ENCODERS["bert"]()
    config.vocab_size = 256
    model = save(config, folder)
    byte_tokenizer().save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def client(bert):
    """A client of that model."""
    with connect(f"local:{bert[0]}") as client:
        yield client


def wanted(model, text):
    return plain_states(model, byte_tokenizer().encode(text))[0].mean(0).numpy()


def close(found, expected):
    return numpy.abs(numpy.array(found) - expected).max() < 1e-5 * max(1.0, numpy.abs(expected).max())


def test_a_folder_of_an_encoder_is_served_as_one(client):
    facts = client.model_info()
    assert (facts["task"], facts["width"], facts["layers"], facts["pooling"]) == ("encoder", 32, 3, "mean")


def test_many_texts_come_back_in_their_order(client, bert):
    texts = [f"text {i} " + "x" * (i % 30) for i in range(150)]
    found = client.embed(texts)
    assert found.token_ids == [byte_tokenizer().encode(text) for text in texts]
    assert all(close(vector, wanted(bert[1], text)) for text, vector in zip(texts, found.vectors, strict=True))


def test_the_asynchronous_client_does_the_same(bert):
    async def main():
        async with connect(f"local:{bert[0]}") as client:
            return await asyncio.gather(client.embed(TEXTS), client.embed([[97, 98]], pooling="none"))

    pooled, states = asyncio.run(main())
    assert close(pooled.vectors[0], wanted(bert[1], TEXTS[0]))
    assert close(states.last_hidden_state[0], plain_states(bert[1], [97, 98])[0].numpy())


def test_arrays_hold_what_the_lists_do(client, bert):
    found = client.embed(TEXTS, layers=[0, 2], embedding=True, pooling="none")
    arrays = found.numpy()
    assert set(arrays) == {"layer_0", "layer_2", "embedding", "token_ids", "attention_mask"}
    for place, text in enumerate(TEXTS):
        _, hidden = plain_states(bert[1], byte_tokenizer().encode(text))
        assert close(arrays["layer_2"][place, : len(text)], hidden[3].numpy())
        assert not arrays["layer_2"][place, len(text) :].any()
        assert arrays["attention_mask"][place].sum() == len(text)


def test_padding_is_over_all_texts_of_a_call(client):
    found = client.embed([[1] * (1 + i % 9) for i in range(100)], padding_side="left", padding_id=5)
    assert {len(ids) for ids in found.token_ids} == {9}
    assert found.token_ids[0] == [5] * 8 + [1]


@pytest.mark.parametrize(
    ("texts", "options", "error", "words"),
    [
        ("abc", {}, RequestRejected, "texts is the text 'abc'"),
        ([], {}, RequestRejected, "texts is empty"),
        (["a", [1]], {}, RequestRejected, "texts and token ids"),
        (["a"], {"pooling": "sum"}, RequestRejected, 'pooling is "sum"'),
        (["a"], {"layer": 1}, RequestRejected, "no option layer"),
        ([[1.5]], {}, RequestRejected, r"texts\[0\] holds what is no token id"),
        (["a"], {"deadline": 0}, RequestRejected, "deadline is 0"),
        (["a"], {"layers": [3]}, OperationFailed, "layers names 3, and this model's layers are 0 to 2"),
        (["x" * 67], {}, OperationFailed, "text 0 has 67 tokens"),
        ([[1]], {"deadline": 1e-6}, DeadlineExceeded, "has had its 1e-06 seconds"),
    ],
)
def test_what_cannot_be_is_said(client, texts, options, error, words):
    with pytest.raises(error, match=words):
        client.embed(texts, **options)


def test_a_model_that_continues_text_is_told_from_an_encoder(tmp_path):
    tiny_llama(vocab_size=256).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with connect(f"local:{tmp_path}") as client, pytest.raises(UnsupportedByServer, match="its task is causal-lm"):
        client.embed(["a"])


def test_an_encoder_continues_nothing(client):
    with pytest.raises(OperationFailed, match="gives vectors"):
        client.generate([1, 2]).result()


@pytest.mark.slow
def test_the_table_shows_how_alike_texts_are(project, bert):
    result = project.run("embed", f"local:{bert[0]}", "--texts", *TEXTS)
    assert result.returncode == 0, result.stderr
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["text", "1", "2", "3"]
    vectors = [wanted(bert[1], text) for text in TEXTS]
    for number, (one, row) in enumerate(zip(vectors, rows, strict=True), start=1):
        assert row.startswith(f"{number}  {TEXTS[number - 1]!r}")
        cosines = [one @ other / numpy.linalg.norm(one) / numpy.linalg.norm(other) for other in vectors]
        assert [float(figure) for figure in row.split()[-3:]] == pytest.approx(cosines, abs=6e-4)


@pytest.mark.slow
def test_json_and_a_file_of_arrays(project, bert):
    arguments = ("--texts", *TEXTS, "--pooling", "none", "--layers", "2", "--embedding", "--npz", "out.npz", "--json")
    result = project.run("embed", f"local:{bert[0]}", *arguments)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    arrays = numpy.load(project.root / "out.npz")
    assert (answer["texts"], answer["pooling"], set(arrays)) == (
        TEXTS,
        "none",
        {"layer_2", "embedding", "token_ids", "attention_mask"},
    )
    for place, text in enumerate(TEXTS):
        _, hidden = plain_states(bert[1], answer["token_ids"][place])
        assert close(answer["layer_2"][place], hidden[3].numpy())
        assert close(arrays["embedding"][place, : len(text)], hidden[0].numpy())
    assert sorted(path.name for path in project.root.glob("*out.npz*")) == ["out.npz"]


@pytest.mark.slow
def test_hidden_states_are_shown_by_their_sizes(project, bert):
    result = project.run("embed", f"local:{bert[0]}", "--ids", "1,2,3", "4,5", "--pooling", "none")
    assert result.stdout.split() == ["output", "texts", "tokens", "width", "last_hidden_state", "2", "3,", "2", "32"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either --texts or --ids"),
        (["--texts", "a", "--ids", "1"], "either --texts or --ids"),
        (["--texts", "a", "--layers", "first"], "--layers is 'first'"),
        (["--texts", "a", "--pooling", "sum"], "--pooling"),
    ],
)
def test_wrong_usage_exits_with_2(project, arguments, words):
    result = project.run("embed", "tiny", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())
