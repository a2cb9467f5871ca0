"""Constraints: texts against `re`, `jsonschema` and membership, numbers against plain forward passes."""

import json
import math
import re

import jsonschema
import pytest
import torch

from cogsmith.engine.request import Constraint, GenerateRequest
from cogsmith.errors import RequestError

from .constrained import BYTES, EOS, PROMPT, TOKENIZER, choice, finished, model_with, request, text_of
from .models import Stream, engine_over, held, plain_logprobs, run
from .test_masks import bits

CHOICES = ("hello", "help", "hello world", "yes", "the person said no", "été 🌍")


@pytest.fixture(scope="module")
def model():
    return model_with(eos_token_id=EOS)


@pytest.fixture(scope="module")
def engine(model):
    engine = engine_over(model, TOKENIZER)
    yield engine
    engine.close()


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
