"""Constraints: texts against `re`, `jsonschema` and membership, numbers against plain forward passes."""

import json
import math
import re

import jsonschema
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cogsmith.engine.grammars import Grammar
from cogsmith.engine.request import Constraint, FailedEvent, GenerateRequest, Sampling, TokenEvent
from cogsmith.errors import RequestError
from cogsmith.sources.gguf.tokenizer import build_tokenizer

from ..sources.gguf.files import tokenizer_metadata
from .models import Stream, engine_over, held, plain_logprobs, run, tiny_llama
from .test_masks import bits

TEXTS = ["the person said hello world and went", '{"name": "Ann", "age": 41, "tags": ["red", "green"]}', "yes no maybe"]
PROMPT = (5, 6, 7)
CHOICES = ("hello", "help", "hello world", "yes", "the person said no", "été 🌍")


def trained_tokenizer():
    """Byte-level BPE with tokens of several bytes, so that a text can be spelled in many ways."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<s>", "</s>", "<end>"], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def token_bytes(tokenizer):
    """The bytes of each id; None for special tokens. Made from the alphabet of byte-level BPE (GPT-2's)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    special = set(tokenizer.all_special_tokens) | {"<s>", "<end>"}
    pieces = {}
    for piece, id_ in tokenizer.get_vocab().items():
        pieces[id_] = None if piece in special else bytes(byte_of[character] for character in piece)
    return [pieces[id_] for id_ in range(len(pieces))]


TOKENIZER = trained_tokenizer()
BYTES = token_bytes(TOKENIZER)
EOS = TOKENIZER.eos_token_id


def model_with(**changes):
    return tiny_llama(vocab_size=len(BYTES) + 5, max_position_embeddings=256, **changes)


@pytest.fixture(scope="module")
def model():
    return model_with(eos_token_id=EOS)


@pytest.fixture(scope="module")
def engine(model):
    engine = engine_over(model, TOKENIZER)
    yield engine
    engine.close()


def request(constraint, seed=None, *, max_tokens=80, **fields):
    sampling = Sampling() if seed is None else Sampling(temperature=1.0, seed=seed)
    return GenerateRequest(PROMPT, max_tokens, sampling, constraint=constraint, **fields)


def choice(*texts):
    return Constraint("choice", choices=texts)


def text_of(events):
    return b"".join(BYTES[event.token] or b"" for event in events).decode()


def finished(events):
    """The text of a stream that has followed its grammar to the end."""
    assert [event.finish_reason for event in events] == [None] * (len(events) - 1) + ["stop"]
    assert events[-1].token == EOS
    return text_of(events)


@pytest.fixture
def forwards(engine, monkeypatch):
    """How many tokens each forward pass has had."""
    runner, counts = engine._stepper._runner, []
    forward = runner.forward

    def counted(chunks):
        counts.append(sum(len(chunk.tokens) for chunk in chunks))
        return forward(chunks)

    monkeypatch.setattr(runner, "forward", counted)
    return counts


def test_a_choice_is_one_of_the_choices(engine):
    results = run(engine, *(request(choice(*CHOICES), seed) for seed in range(40)))
    texts = {finished(events) for events in results}
    assert texts <= set(CHOICES)
    assert len(texts) > 1


@pytest.mark.parametrize("seed", range(8))
def test_log_probabilities_are_the_models_over_what_the_choices_leave(model, engine, seed):
    """Allowed is what makes a beginning of a choice; forced is only what all choices that are left go on with."""
    (events,) = run(engine, request(choice(*CHOICES), seed, top_logprobs=len(BYTES)))
    texts = [text.encode() for text in CHOICES]
    plain = plain_logprobs(model, [*PROMPT, *(event.token for event in events)])[len(PROMPT) - 1 :]
    done, sampled = b"", 0
    for event, row in zip(events, plain, strict=False):
        left = [text for text in texts if text.startswith(done)]
        allowed = {i for i, piece in enumerate(BYTES) if piece and any(text.startswith(done + piece) for text in left)}
        allowed |= {EOS} if done in texts else set()
        assert event.token in allowed
        if event.top_logprobs == {event.token: 0.0}:
            piece = BYTES[event.token]
            assert left == [done] if piece is None else all(text.startswith(done + piece) for text in left)
        else:
            kept = torch.full_like(row, -math.inf)
            kept[sorted(allowed)] = row[sorted(allowed)]
            truth = torch.log_softmax(kept, dim=-1)
            assert event.top_logprobs == pytest.approx({i: truth[i].item() for i in allowed}, abs=1e-4)
            assert event.logprob == event.top_logprobs[event.token]
            sampled += 1
        done += BYTES[event.token] or b""
    assert sampled


@pytest.mark.parametrize(
    "pattern", [r"[0-9]{3}-[0-9]{2}", r"(yes|no)( sir)?", r"a/b\n[xyz]", r"[^a-z]{1,3}!", r"h(e|é)l{2,5}o", r".{2}"]
)
def test_a_regular_expression_matches_from_end_to_end(engine, pattern):
    results = run(engine, *(request(Constraint("regex", pattern), seed) for seed in range(12)))
    for events in results:
        assert re.fullmatch(pattern, finished(events)), text_of(events)


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}


def test_json_keeps_to_its_schema(engine):
    results = run(engine, *(request(Constraint("json_schema", json.dumps(SCHEMA)), seed) for seed in range(12)))
    for events in results:
        jsonschema.validate(json.loads(finished(events)), SCHEMA)


def test_a_grammar_of_rules(engine):
    """Brackets that match are no regular language."""
    rules = Constraint("lark", 'start: "(" start? ")" | "[" start? "]"')
    for events in run(engine, *(request(rules, seed) for seed in range(12))):
        text = finished(events)
        while "()" in text or "[]" in text:
            text = text.replace("()", "").replace("[]", "")
        assert text == ""


def test_a_stream_does_not_depend_on_its_batch(engine):
    asked = request(Constraint("regex", "[a-z]{4,9}( hello world)+"), 3, max_tokens=40)
    (alone,) = run(engine, asked)
    with held(engine):
        streams = [Stream() for _ in range(4)]
        others = [request(choice(*CHOICES), 1), request(Constraint("regex", "[0-9]{30}"), 2), request(None, 4)]
        for one, stream in zip([*others, asked], streams, strict=True):
            engine.submit(one, stream)
    together = [stream.result() for stream in streams][-1]
    assert [event.token for event in together] == [event.token for event in alone]
    assert [event.logprob for event in together] == pytest.approx([event.logprob for event in alone], abs=1e-4)


def test_forced_tokens_take_no_forward_pass_each(model, engine, forwards):
    pattern = "the person said (yes|no) and went hello (red|green)"
    (events,) = run(engine, request(Constraint("regex", pattern), top_logprobs=5))
    assert re.fullmatch(pattern, finished(events))
    drawn = [i for i, event in enumerate(events) if event.top_logprobs != {event.token: 0.0}]
    assert len(forwards) <= len(drawn) + 1
    assert len(events) >= 2 * len(forwards)
    assert sum(forwards) <= len(PROMPT) + len(events)
    # The chunk of forced tokens has left behind what a plain pass does.
    plain = plain_logprobs(model, [*PROMPT, *(event.token for event in events)])[len(PROMPT) - 1 :]
    for i in drawn:
        names, values = zip(*events[i].top_logprobs.items(), strict=True)
        difference = plain[i, list(names)] - torch.tensor(values)
        assert difference.max() - difference.min() < 2e-4


def test_what_is_forced_to_its_end_needs_no_model(engine, forwards):
    (events,) = run(engine, request(choice("hello world"), logprob_ids=(EOS, 9)))
    assert finished(events) == "hello world"
    assert {event.logprob for event in events} == {0.0}
    assert [event.logprobs for event in events] == [{}] * (len(events) - 1) + [{EOS: 0.0}]
    assert forwards == []


@pytest.mark.parametrize("most", [1, 2, 3])
def test_forced_tokens_end_at_the_limit(engine, most):
    (events,) = run(engine, request(choice("hello world and went"), max_tokens=most))
    assert len(events) == most
    assert events[-1].finish_reason == "length"


def test_the_context_ends_what_is_forced(engine):
    longest = GenerateRequest((5,) * (engine.info.max_context - 3), 50, constraint=choice("hello world and went"))
    (events,) = run(engine, longest)
    assert (len(events), events[-1].finish_reason) == (3, "length")


def test_a_mask_and_a_constraint_hold_together(engine):
    """What the mask excludes is not forced: the text is spelled in other tokens."""
    single = [i for i, piece in enumerate(BYTES) if piece and len(piece) == 1]
    for seed in range(5):
        (events,) = run(engine, request(choice("hello world", "help"), seed, allow=bits(*single, EOS)))
        assert finished(events) in ("hello world", "help")
        assert {event.token for event in events} <= {*single, EOS}


def test_a_mask_against_the_end_token_ends_a_complete_text(engine):
    digits = [BYTES.index(str(i).encode()) for i in range(10)]
    (events,) = run(engine, request(Constraint("regex", "[0-9]{3}"), 1, allow=bits(*digits)))
    assert re.fullmatch("[0-9]{3}", text_of(events))
    assert [event.finish_reason for event in events] == [None, None, "stop"]


def test_a_mask_that_leaves_nothing_to_begin_with_is_refused(engine):
    with pytest.raises(RequestError, match=r"constraint\.regex and allow leave no token that could come first"):
        engine.submit(request(Constraint("regex", "[0-9]"), allow=bits(BYTES.index(b"a"))), Stream())


def test_a_mask_that_leaves_nothing_later_ends_the_stream_with_the_reason(engine):
    (events,) = run(engine, request(Constraint("regex", "[ab][0-9]"), allow=bits(BYTES.index(b"a"), EOS)))
    assert text_of(events[:-1]) == "a"
    assert "mask and constraint leave no token" in events[-1].message


def test_a_complete_grammar_ends_before_min_tokens_and_an_open_one_does_not(engine):
    done, open_ = run(
        engine,
        request(choice("yes", "no"), 1, min_tokens=30),
        request(Constraint("regex", "[ab]+"), 1, min_tokens=30, bias={EOS: 50.0}),
    )
    assert finished(done) in ("yes", "no")
    assert len(open_) == 31
    assert re.fullmatch("[ab]{30,}", finished(open_))


def test_a_model_with_several_end_tokens_may_end_with_any():
    other = TOKENIZER.convert_tokens_to_ids("<end>")
    engine = engine_over(model_with(eos_token_id=[EOS, other]), TOKENIZER)
    results = run(engine, *(request(choice("yes"), bias={wanted: 60.0}) for wanted in (EOS, other)))
    assert [[event.token for event in events][-1] for events in results] == [EOS, other]
    assert {text_of(events) for events in results} == {"yes"}
    engine.close()


def test_a_model_without_an_end_token_ends_with_the_text():
    tokenizer = trained_tokenizer()
    tokenizer.eos_token = None
    engine = engine_over(model_with(), tokenizer)
    for seed in range(6):
        (events,) = run(engine, request(choice("yes", "no", "hello world"), seed))
        assert text_of(events) in ("yes", "no", "hello world")
        assert events[-1].finish_reason == "stop"
    engine.close()


def test_branches_share_one_grammar(engine, monkeypatch):
    compiled = []
    compile_ = Grammar.compile
    monkeypatch.setattr(Grammar, "compile", lambda self, asked: compiled.append(asked) or compile_(self, asked))
    constraint = Constraint("regex", "[a-f]{5}")
    texts = {finished(events) for events in run(engine, *(request(constraint, seed) for seed in range(8)))}
    assert len(compiled) == 1
    assert len(texts) > 1


def test_a_text_that_names_a_special_token_is_spelled_as_text(engine):
    for text in ("</s>", "yes</s>no", "<end> is near"):
        (events,) = run(engine, request(choice(text)))
        assert finished(events) == text
        assert EOS not in [event.token for event in events[:-1]]


def test_a_grammar_may_ask_for_a_special_token(engine):
    (events,) = run(engine, request(Constraint("lark", 'start: "yes" <end> "no"')))
    assert TOKENIZER.convert_tokens_to_ids("<end>") in [event.token for event in events]
    assert finished(events) == "yesno"


def test_ids_that_the_model_does_not_have_are_neither_drawn_nor_forced():
    """The tokenizer knows more ids than the head has: the longest tokens."""
    head = 290
    assert any(len(piece or b"") > 3 for piece in BYTES[head:])
    engine = engine_over(tiny_llama(vocab_size=head, eos_token_id=EOS), TOKENIZER)
    for seed in range(5):
        (events,) = run(engine, request(choice("the person said hello world", "hello world"), seed))
        assert finished(events) in ("the person said hello world", "hello world")
        assert max(event.token for event in events) < head
    engine.close()


def test_sentencepiece_with_byte_fallback():
    """A space is a letter of its own there, and what the vocabulary lacks is spelled in bytes."""
    built = build_tokenizer(tokenizer_metadata("llama"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=built.tokenizer)
    (eos,) = built.special.eos
    engine = engine_over(tiny_llama(vocab_size=len(tokenizer), eos_token_id=eos), tokenizer)
    choices = ("a b", " é🌍 the", "the  the")
    before = tokenizer.decode(list(PROMPT))
    texts = set()
    for events in run(engine, *(request(choice(*choices), seed) for seed in range(12))):
        assert events[-1].token == eos
        ids = [event.token for event in events[:-1]]
        texts.add(tokenizer.decode([*PROMPT, *ids])[len(before) :])
    assert texts <= set(choices)
    assert len(texts) > 1
    engine.close()


def test_a_model_without_a_tokenizer_refuses():
    engine = engine_over(model_with())
    with pytest.raises(RequestError, match="this model came without a tokenizer, so it takes no constraint"):
        engine.submit(request(choice("yes")), Stream())
    engine.close()


@pytest.mark.parametrize(
    ("constraint", "told"),
    [
        (Constraint("regex", "(a"), "unclosed group"),
        (Constraint("regex", "(?=a)b"), "look-around"),
        (Constraint("lark", "start: nothing"), "nothing"),
        (Constraint("json_schema", '{"uniqueItems": true, "type": "array"}'), "uniqueItems"),
        (Constraint("json_schema", '{"$ref": "https://example.org/x"}'), "example.org"),
    ],
)
def test_a_constraint_that_is_none_is_refused_with_the_reason(engine, constraint, told):
    with pytest.raises(RequestError, match=rf"constraint\.{constraint.kind} cannot be used: (.|\n)*{told}"):
        engine.submit(request(constraint), Stream())


def chain(length):
    """Rules whose nesting overflows the stack of a process that reads them."""
    return "\n".join(["start: t0", *(f"t{i}: t{i + 1}" for i in range(length)), f't{length}: "a"'])


HOSTILE = {
    "stack": Constraint("lark", chain(9000)),
    "memory": Constraint("regex", "[^a]?" * 12000),
    "forced": Constraint("regex", "a{1000000}b"),
    "forced later": Constraint("regex", "(x|y)a{1000000}b"),
    "ambiguous": Constraint("lark", 'start: s\ns: s s s | s s | "a" | "b"'),
    "wide": Constraint("lark", "start: " + " | ".join(f"/{i:04}[a-z]*x/" for i in range(3000))),
    "nested counts": Constraint("regex", "((a{1,100}){1,100}){1,100}"),
}


def ends_somehow(engine, asked):
    """Whether a request is refused, or its stream ends."""
    stream = Stream()
    try:
        engine.submit(asked, stream)
    except RequestError as error:
        return "cannot be used" in error.message
    last = stream.result()[-1]
    return isinstance(last, FailedEvent) or last.finish_reason is not None


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_constraint_ends_no_stream_but_its_own(engine, kind):
    asked = request(None, 5, max_tokens=200)
    constrained = request(Constraint("regex", "[a-f]{60}"), 5, max_tokens=200)
    alone = run(engine, asked, constrained)
    streams = [Stream(), Stream()]
    engine.submit(asked, streams[0])
    engine.submit(constrained, streams[1])
    assert ends_somehow(engine, request(HOSTILE[kind], 1, max_tokens=200))
    for stream, expected in zip(streams, alone, strict=True):
        events = stream.result()
        assert all(isinstance(event, TokenEvent) for event in events)
        assert [event.token for event in events] == [event.token for event in expected]
    assert engine.healthy()
    assert finished(run(engine, request(choice("yes")))[0]) == "yes"


def test_what_makes_the_grammars_may_die(engine):
    engine._grammars._worker.kill()
    engine._grammars._worker.wait()
    (events,) = run(engine, request(choice("hello", "yes it is"), 1))
    assert finished(events) in ("hello", "yes it is")


def test_closing_the_engine_ends_its_processes():
    engine = engine_over(model_with(eos_token_id=EOS), TOKENIZER)
    run(engine, request(choice("yes")))
    worker = engine._grammars._worker
    engine.close()
    assert worker.poll() is not None
