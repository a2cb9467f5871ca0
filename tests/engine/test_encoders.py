"""Models that give vectors, against plain transformers over the same weights, one text at a time."""

import numpy
import pytest
import torch
import transformers

from cogsmith.engine.request import EmbedRequest, FailedEvent, GenerateRequest, Padding, ScoreRequest
from cogsmith.errors import RequestError, UserError
from cogsmith.manifest import Limits

from .encoders import DECODERS, ENCODERS, VOCAB, ask, engine_over, plain_states, save
from .models import engine_over as token_engine_over
from .models import held, tiny_llama

LENGTHS = (1, 2, 5, 6, 7, 17, 30, 31, 64)
TEXTS = tuple(tuple(3 + (7 * i + 11 * n) % (VOCAB - 3) for i in range(n)) for n in LENGTHS)
CLOSE = 1e-5


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A plain BERT and the engine over the same weights."""
    folder = tmp_path_factory.mktemp("bert")
    model = save(ENCODERS["bert"](), folder)
    engine = engine_over(folder, max_batch_size=4)
    yield model, engine
    engine.close()


def close(found, wanted):
    wanted = numpy.asarray(wanted)
    assert found.shape == wanted.shape
    assert numpy.abs(found - wanted).max() <= CLOSE * max(1.0, float(numpy.abs(wanted).max()))


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_hidden_states_are_those_of_plain_transformers(name, tmp_path):
    model = save((ENCODERS | DECODERS)[name](), tmp_path)
    engine = engine_over(tmp_path, task="encoder" if name in ENCODERS else "decoder")
    try:
        whole = ask(engine, EmbedRequest(TEXTS, layers="all", embedding=True, pooling="none"))[0]
        last = ask(engine, *(EmbedRequest((text,), pooling="none") for text in TEXTS))
        layers = engine.info.layers
    finally:
        engine.close()
    assert set(whole.outputs) == {*range(layers), "embedding"}
    for place, text in enumerate(TEXTS):
        wanted, hidden = plain_states(model, text)
        close(last[place].outputs["last"][0], wanted)
        assert layers == len(hidden) - 1
        close(whole.outputs["embedding"][place], hidden[0])
        for layer in range(layers):
            close(whole.outputs[layer][place], hidden[layer + 1])


def test_what_shares_a_batch_changes_nothing(bert):
    _, engine = bert
    alone = [ask(engine, EmbedRequest((text,), pooling="none"))[0].outputs["last"][0] for text in TEXTS]
    together = ask(engine, EmbedRequest(TEXTS[::-1], pooling="none"))[0].outputs["last"][::-1]
    for one, other in zip(alone, together, strict=True):
        close(one, other)


def test_two_calls_are_equal_and_nothing_is_trained(bert):
    _, engine = bert
    first, second = (ask(engine, EmbedRequest(TEXTS))[0].outputs["last"] for _ in range(2))
    assert all(numpy.array_equal(*pair) for pair in zip(first, second, strict=True))
    assert not any(parameter.requires_grad for parameter in engine._model.model.parameters())


@pytest.mark.parametrize(
    ("pooling", "truth"),
    [
        ("mean", lambda states: states.mean(0)),
        ("max", lambda states: states.amax(0)),
        ("cls", lambda states: states[0]),
        ("last", lambda states: states[-1]),
    ],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling(bert, pooling, truth, normalize):
    model, engine = bert
    (answer,) = ask(engine, EmbedRequest(TEXTS, pooling=pooling, normalize=normalize))
    assert (answer.pooling, answer.normalize) == (pooling, normalize)
    for text, found in zip(TEXTS, answer.outputs["last"], strict=True):
        wanted = truth(plain_states(model, text)[0])
        close(found, wanted / wanted.norm() if normalize else wanted)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_that_is_asked_for_is_read_and_masked(bert, side):
    model, engine = bert
    (answer,) = ask(engine, EmbedRequest(TEXTS, pooling="none", padding=Padding(side, 2)))
    for text, row, found in zip(TEXTS, answer.inputs, answer.outputs["last"], strict=True):
        pad = (2,) * (64 - len(text))
        assert row == (pad + text if side == "left" else text + pad)
        close(found, plain_states(model, row, [int(token != 2) for token in row])[0])


def test_pooling_leaves_padding_out(bert):
    model, engine = bert
    (answer,) = ask(engine, EmbedRequest(TEXTS, pooling="mean", padding=Padding("left", 2)))
    for row, found in zip(answer.inputs, answer.outputs["last"], strict=True):
        mask = torch.tensor([token != 2 for token in row])
        close(found, plain_states(model, row, mask.int().tolist())[0][mask].mean(0))


def test_a_causal_model_bears_left_padding(tmp_path):
    model = save(DECODERS["llama"](), tmp_path)
    engine = engine_over(tmp_path, task="decoder")
    try:
        (answer,) = ask(engine, EmbedRequest(TEXTS, pooling="none", padding=Padding("left", 2)))
    finally:
        engine.close()
    for text, found in zip(TEXTS, answer.outputs["last"], strict=True):
        # Its positions are relative: what is masked before a text shifts them and changes nothing.
        close(found[-len(text) :], plain_states(model, text)[0])


@pytest.mark.parametrize(("name", "usable"), [("bert", 66), ("roberta", 64), ("mpnet", 64), ("gpt2", 66)])
def test_a_text_may_be_as_long_as_there_are_positions(name, usable, tmp_path):
    save((ENCODERS | DECODERS)[name](), tmp_path)
    engine = engine_over(tmp_path)
    try:
        (answer,) = ask(engine, EmbedRequest(((5,) * usable,)))
        assert not isinstance(answer, FailedEvent)
        with pytest.raises(RequestError, match=rf"text 1 has {usable + 1} tokens.*takes {usable} at most"):
            engine.submit(EmbedRequest(((5,), (5,) * (usable + 1))), lambda _: None)
    finally:
        engine.close()


REFUSED = [
    ({"inputs": ()}, "no text"),
    ({"inputs": ((1,), ())}, r"inputs\[1\] is empty"),
    ({"inputs": ((1, VOCAB),)}, rf"inputs\[0\]\[1\] is {VOCAB}.*0 to {VOCAB - 1}"),
    ({"layers": (0, 3)}, "layers names 3, and this model's layers are 0 to 2"),
    ({"layers": (-1,)}, "layers names -1, and this model's layers are 0 to 2"),
    ({"layers": ()}, "layers is empty"),
    ({"padding": Padding("left", VOCAB)}, "padding_id"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_answered_is_refused_at_once(bert, changes, message):
    _, engine = bert
    with pytest.raises(RequestError, match=message):
        engine.submit(EmbedRequest(**{"inputs": ((1, 2),), **changes}), lambda _: None)


@pytest.mark.parametrize("request_", [GenerateRequest((1,)), ScoreRequest((1,), (2,))])
def test_an_encoder_continues_and_scores_nothing(bert, request_):
    _, engine = bert
    with pytest.raises(RequestError, match="gives vectors"):
        engine.submit(request_, lambda _: None)


def test_a_model_that_continues_text_gives_no_vectors():
    engine = token_engine_over(tiny_llama())
    try:
        with pytest.raises(RequestError, match="continues text"):
            engine.submit(EmbedRequest(((1,),)), lambda _: None)
    finally:
        engine.close()


def test_a_model_that_mixes_positions_is_found_out(tmp_path):
    save(ENCODERS["fnet"](), tmp_path / "fnet")
    save(ENCODERS["roberta"](), tmp_path / "roberta")
    for name, runner in (("fnet", "equal lengths"), ("roberta", "padded")):
        engine = engine_over(tmp_path / name)
        engine.close()
        assert engine.info.details["runner"] == runner


def test_weights_that_lack_a_layer_are_refused(tmp_path):
    config = ENCODERS["bert"]()
    save(config, tmp_path)
    config.num_hidden_layers = 4
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lack 16 tensors of BertModel, such as encoder\.layer\.3"):
        engine_over(tmp_path)


def test_a_cancelled_request_gets_no_answer_and_others_do(bert):
    _, engine = bert
    told = []
    with held(engine, EmbedRequest(((1,),))):
        for handle in [engine.submit(EmbedRequest(TEXTS * 20), told.append) for _ in range(3)]:
            handle.cancel()
    (answer,) = ask(engine, EmbedRequest(TEXTS))
    assert not isinstance(answer, FailedEvent)
    assert told == []


def test_a_full_queue_is_said_so(bert, tmp_path):
    model, _ = bert
    model.save_pretrained(tmp_path)
    engine = engine_over(tmp_path, max_batch_size=1, max_queue=1)
    try:
        with held(engine, EmbedRequest(((1,),))), pytest.raises(RequestError, match="queue is full"):
            [engine.submit(EmbedRequest(TEXTS), lambda _: None) for _ in range(3)]
    finally:
        engine.close()


def test_what_is_under_way_when_the_engine_ends_is_told(bert, tmp_path):
    model, _ = bert
    model.save_pretrained(tmp_path)
    engine = engine_over(tmp_path, max_batch_size=1)
    told = []
    engine.submit(EmbedRequest(TEXTS * 50), told.extend)
    engine.close()
    assert told == [FailedEvent("the engine is shutting down")]
    with pytest.raises(RequestError, match="shutting down"):
        engine.submit(EmbedRequest(TEXTS), told.extend)


def test_a_batch_that_fails_ends_its_requests_alone(bert, monkeypatch):
    _, engine = bert
    run = type(engine._model).run

    def fails_on_long(self, ids, mask, *, every_layer):
        if ids.shape[1] > 60:
            raise RuntimeError("no memory")
        return run(self, ids, mask, every_layer=every_layer)

    monkeypatch.setattr(type(engine._model), "run", fails_on_long)
    bad, good = ask(engine, EmbedRequest(TEXTS), EmbedRequest(TEXTS[:4]))
    assert bad == FailedEvent("the engine failed: RuntimeError: no memory")
    assert len(good.outputs["last"]) == 4
    assert engine.healthy()


def test_limits_bound_the_context(tmp_path):
    save(ENCODERS["bert"](), tmp_path)
    engine = engine_over(tmp_path, max_context=8)
    engine.close()
    assert engine.info.max_context == 8
    assert Limits().max_context is None


def test_numbers_that_are_none_are_said_so(tmp_path):
    model = save(ENCODERS["bert"](), tmp_path)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[7] = torch.nan
    model.save_pretrained(tmp_path)
    engine = engine_over(tmp_path)
    try:
        bad, good = ask(engine, EmbedRequest(((5, 7),)), EmbedRequest(((5, 6),)))
    finally:
        engine.close()
    assert "infinite or undefined" in bad.message
    assert not isinstance(good, FailedEvent)


def test_a_head_for_another_purpose_is_left_out(tmp_path):
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(ENCODERS["bert"]()).eval()
    model.save_pretrained(tmp_path)
    engine = engine_over(tmp_path)
    try:
        (answer,) = ask(engine, EmbedRequest(TEXTS, pooling="none"))
    finally:
        engine.close()
    for text, found in zip(TEXTS, answer.outputs["last"], strict=True):
        close(found, plain_states(model.bert, text)[0])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (transformers.BrosConfig, "BrosModel makes no vectors of texts alone: ValueError: .*bbox"),
        (transformers.BartConfig, "bart is an encoder and a decoder in one"),
    ],
)
def test_a_model_of_something_else_is_refused_with_the_reason(config, message, tmp_path):
    shape = {"vocab_size": VOCAB, "hidden_size": 32, "d_model": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    small = {name: value for name, value in shape.items() if hasattr(config(), name)}
    save(config(**small), tmp_path)
    with pytest.raises(UserError, match=message):
        engine_over(tmp_path)
