"""The processes of grammars: which tokenizers and models they are for, what they refuse, and what ends them."""

import gc
import json
import threading
import weakref

import pytest
from transformers import PreTrainedTokenizerFast

from cogsmith.engine import grammars
from cogsmith.engine.grammars import Grammar
from cogsmith.engine.request import Constraint, FailedEvent, TokenEvent
from cogsmith.errors import RequestError
from cogsmith.sources.gguf.tokenizer import build_tokenizer

from ..sources.gguf.files import tokenizer_metadata
from .constrained import (
    BYTES,
    EOS,
    PROMPT,
    TOKENIZER,
    choice,
    finished,
    model_with,
    request,
    text_of,
    trained_tokenizer,
)
from .models import Stream, engine_over, run, tiny_llama


@pytest.fixture(scope="module")
def engine():
    engine = engine_over(model_with(eos_token_id=EOS), TOKENIZER)
    yield engine
    engine.close()


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
    made = []
    new = Grammar.__init__
    monkeypatch.setattr(Grammar, "__init__", lambda self, *given: made.append(given) or new(self, *given))
    constraint = Constraint("regex", "[a-f]{5}")
    texts = {finished(events) for events in run(engine, *(request(constraint, seed) for seed in range(8)))}
    assert len(made) == 1
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


def test_the_reason_shows_no_grammar_that_the_client_has_not_written(engine):
    with pytest.raises(RequestError) as refused:
        engine.submit(request(Constraint("regex", "(a")), Stream())
    assert "start:" not in refused.value.message


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


def test_a_constraint_that_compiles_for_long_holds_up_no_other(engine, monkeypatch):
    holds, may_go_on = threading.Event(), threading.Event()
    receive = Grammar._receive

    def slow(grammar):
        if grammar._asked["text"] == "slow":
            holds.set()
            may_go_on.wait(60)
        return receive(grammar)

    monkeypatch.setattr(Grammar, "_receive", slow)
    stream = Stream()
    submit = threading.Thread(target=engine.submit, args=(request(Constraint("regex", "slow")), stream), daemon=True)
    submit.start()
    assert holds.wait(60)
    assert ends_in_time(lambda: run(engine, request(choice("quick"))))
    may_go_on.set()
    assert finished(stream.result()) == "slow"


def test_what_makes_the_grammars_may_die(engine):
    engine._grammars._worker.kill()
    engine._grammars._worker.wait()
    (events,) = run(engine, request(choice("hello", "yes it is"), 1))
    assert finished(events) in ("hello", "yes it is")


def ends_in_time(function):
    """Whether a function ends, which runs in a thread that would not hold the tests up."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


def test_a_stream_may_be_collected_while_its_grammar_is_in_use(engine, monkeypatch):
    """A sink that knows its handle makes a circle: the garbage collector ends it, at any time and in any thread."""
    asked, stream = request(Constraint("regex", "[a-c]{3,9}"), max_tokens=2), Stream()
    stream.handle = engine.submit(asked, stream)
    stream.result()
    run(engine, request(None, max_tokens=1))
    gone = weakref.ref(stream)
    del stream
    dumps = json.dumps
    monkeypatch.setattr(grammars.json, "dumps", lambda *args, **kwargs: (gc.collect(), dumps(*args, **kwargs))[1])
    grammar = engine._grammars.get(asked.constraint)
    assert ends_in_time(lambda: grammar.state(grammar.start(None, 5)))
    assert gone() is None


def test_more_streams_begin_at_once_than_a_socket_holds_questions_and_answers(engine):
    grammar = engine._grammars.get(Constraint("regex", "[a-d]{3,9}"))
    states = []

    def begin_all():
        ids = [grammar.start(b"\xff" * 1000, 5) for _ in range(800)]
        states.extend(grammar.state(id_) for id_ in ids)
        for id_ in ids:
            grammar.leave(id_)

    assert ends_in_time(begin_all)
    assert len({state.allowed.tobytes() for state in states}) == 1
    assert [state.error for state in states] == [None] * 800


def test_closing_the_engine_ends_its_processes():
    engine = engine_over(model_with(eos_token_id=EOS), TOKENIZER)
    run(engine, request(choice("yes")))
    worker = engine._grammars._worker
    engine.close()
    assert worker.poll() is not None
