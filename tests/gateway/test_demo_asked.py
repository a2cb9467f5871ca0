"""What the page asks for, and what it is answered with."""

import asyncio
import json

import pytest

from cogsmith.gateway.demo.routes import PATH
from cogsmith.manifest import Prompt
from cogsmith.prompts import templates

from ..engine.models import byte_tokenizer
from .demo_page import NAME, Model, asked, generated, ids, page, tokens_of

pytestmark = pytest.mark.usefixtures("no_cache")


def test_messages_go_through_the_template_and_the_settings_to_the_model(tmp_path):
    model = Model(ids("yes"))
    message = {"role": "user", "content": "Is it?", "input": "so"}
    lines = generated(
        model, tmp_path, messages=[message], template="alpaca", max_tokens=9, temperature=0.5, top_p=0, seed=7
    )
    verb, payload = model.asked[-1]
    text = templates.find("alpaca").render([message])
    assert (verb, payload["prompt"]) == ("GENERATE", list(ids(text)))
    sent = {name: payload[name] for name in ("max_tokens", "temperature", "top_p", "seed", "top_logprobs")}
    # The smallest set of no probability is the likeliest token alone, and LMTP wants more than 0.
    assert sent == {"max_tokens": 9, "temperature": 0.5, "top_p": 1e-6, "seed": 7, "top_logprobs": 8}
    assert lines[0] == {"prompt_tokens": len(payload["prompt"]), "begun": []}
    assert [token["text"] for token in tokens_of(lines)] == ["y", "e", "s"]
    assert tokens_of(lines)[0]["top"] == [
        {"id": ids("y")[0], "label": "y", "logprob": -1.0},
        {"id": 66, "label": byte_tokenizer().decode([66]), "logprob": -2.0},
    ]
    assert lines[-1]["end"]["reason"] == "length"


def test_a_system_prompt_that_is_packaged_goes_with_the_models_own_template(tmp_path):
    packaged = Prompt(template="v1", system="Be brief.")
    messages = [{"role": "user", "content": "Hi"}]
    for template, system, rendered in (("own", "", "Be brief."), ("own", "Rhyme.", "Rhyme."), ("v1", "", None)):
        model = Model(ids("a"))
        body = {"messages": messages, "template": template, "system": system}
        asked(model, tmp_path, f"{NAME}/generation", body, prompt=packaged)
        before = [{"role": "system", "content": rendered}] if rendered else []
        assert model.asked[-1][1]["prompt"] == list(ids(templates.find("v1").render([*before, *messages])))


def test_nothing_of_a_stop_text_is_shown_and_the_model_is_told_to_end(tmp_path):
    model = Model(ids("Hi!\n###x"), hold=True)
    messages = [{"role": "user", "content": "Hi"}]

    async def run():
        async with page(model, tmp_path) as http:
            body = {"messages": messages, "template": "v1"}
            answer = await http.post(f"{PATH}api/{NAME}/generation", json=body)
            await asyncio.wait_for(model.cancelled.wait(), 10)
            return [json.loads(line) for line in answer.text.splitlines()]

    lines = asyncio.run(run())
    assert "".join(token["text"] for token in tokens_of(lines)) == "Hi!"
    # The tokens themselves are the model's, and are there to be looked at.
    assert "".join(token["label"] for token in tokens_of(lines)) == "Hi!\n###"
    assert (lines[-1]["end"]["reason"], lines[-1]["end"]["stop"]) == ("stop_sequence", "\n###")


def test_who_leaves_ends_what_was_asked_for(tmp_path):
    model = Model(ids("Hello"), hold=True)

    async def run():
        async with page(model, tmp_path) as http:
            async with http.stream("POST", f"{PATH}api/{NAME}/generation", json={"text": "a"}) as answer:
                async for text in answer.aiter_lines():
                    if "tokens" in json.loads(text):
                        break
            await asyncio.wait_for(model.cancelled.wait(), 10)

    asyncio.run(run())


def test_what_has_begun_is_part_of_the_prompt_and_its_text_of_the_answers(tmp_path):
    model = Model(ids("é")[1:])
    lines = generated(model, tmp_path, text="a", begun=ids("bé")[:-1], max_tokens=3)
    assert model.asked[-1][1]["prompt"] == list(ids("a") + ids("bé")[:-1])
    # Half a character has no text until its other half comes.
    assert lines[0] == {"prompt_tokens": 1, "begun": ["b", ""]}
    assert [token["text"] for token in tokens_of(lines)] == ["é"]


def test_a_constraint_reaches_the_model_and_its_stop_texts_do_not_count(tmp_path):
    model = Model(ids("no\n###"))
    messages = [{"role": "user", "content": "Hi"}]
    lines = generated(model, tmp_path, messages=messages, template="v1", constraint={"choice": ["no\n###"]})
    assert model.asked[-1][1]["constraint"] == {"choice": ["no\n###"]}
    assert "".join(token["text"] for token in tokens_of(lines)) == "no\n###"


def test_the_models_refusal_is_told_at_the_end_of_the_lines(tmp_path):
    lines = generated(Model(error="constraint.regex cannot be used"), tmp_path, text="a", constraint={"regex": "("})
    assert lines[-1]["error"] == "constraint.regex cannot be used"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"text": "a", "temperature": 1.5}, "$.temperature"),
        ({"text": "a", "max_tokens": 0}, "$.max_tokens"),
        ({"text": "a", "top_k": 3}, "top_k"),
        ({"text": "a", "constraint": {"json_schema": "{"}}, "constraint.json_schema is no JSON"),
        ({"text": "a", "constraint": {"grammar": "{"}}, "grammar"),
        ({"text": "a", "constraint": {"regex": "a"}, "begun": [66]}, "under a constraint"),
        ({"text": "a", "begun": [9999]}, "9999"),
        ({"messages": [{"role": "user", "content": "a"}], "template": "alpacca"}, "no template 'alpacca'"),
        ({"messages": [], "template": "alpaca"}, "one instruction"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_reason(tmp_path, body, told):
    model = Model()
    status, problem = asked(model, tmp_path, f"{NAME}/generation", body)
    assert status == 422
    assert told in problem["detail"]
    assert not [verb for verb, _ in model.asked if verb == "GENERATE"]


def test_options_are_scored_behind_the_prompt(tmp_path):
    model = Model()
    status, answer = asked(model, tmp_path, f"{NAME}/comparison", {"text": "a", "options": [" b", " cd"]})
    assert status == 200
    verb, payload = model.asked[-1]
    assert (verb, payload["prompt"], payload["options"]) == (
        "SCORE",
        list(ids("a")),
        [list(ids(" b")), list(ids(" cd"))],
    )
    assert [sum(token["logprob"] for token in one["tokens"]) for one in answer["options"]] == [-1.0, -3.0]


def test_the_first_token_of_a_text_was_not_predicted(tmp_path):
    status, answer = asked(Model(), tmp_path, f"{NAME}/reading", {"text": "aé"})
    assert status == 200
    assert [(token["text"], token["logprob"]) for token in answer["tokens"]] == [("a", None), ("", -0.5), ("é", -0.5)]
