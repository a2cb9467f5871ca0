"""The page's part of the gateway, before a model that the test plays."""

import asyncio
import contextlib
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cogsmith.client.results import Token
from cogsmith.client.tokenizer import ClientTokenizer
from cogsmith.gateway.app import create_app
from cogsmith.gateway.demo.models import DemoModels, abilities
from cogsmith.gateway.demo.routes import PATH, DemoRoutes
from cogsmith.gateway.demo.shown import Labels, Shown
from cogsmith.gateway.limits import TokenAuth
from cogsmith.gateway.models import Models, ServedModel
from cogsmith.gateway.predictions import Predictions
from cogsmith.gateway.websocket import LmtpRoutes
from cogsmith.manifest import Manifest, Prompt
from cogsmith.predictor.tokenizer import tokenizer_files
from cogsmith.prompts import templates
from cogsmith.prompts.templates import Template

from ..engine.models import byte_tokenizer
from .stand_in import SCHEMA, Cog, ElsewhereWorker, said, serving

FILES = Path(__file__).parents[2] / "src/cogsmith/gateway/demo/page"
NAME = "models/tiny"


class Model:
    """Answers LMTP as a server of 1.1 does: with `ids`, one chunk each; `asked` are the operations it was sent.

    With `hold` it says no more after them until it is cancelled.
    """

    def __init__(self, ids=(), *, hold=False, error=None):
        self.ids = ids
        self.hold = hold
        self.error = error
        self.asked = []
        self.cancelled = asyncio.Event()

    async def plan(self, inputs, cancelled):
        for verb, payload in json.loads(inputs["ops_batch_json"]):
            self.asked.append((verb, payload))
            for line in self.answers(verb, payload):
                yield said("output", chunk=line)
        if self.hold and verb == "GENERATE":
            await cancelled.wait()
            self.cancelled.set()
            yield said("completed", status="canceled", metrics={})
            return
        yield said("completed", status="succeeded", metrics={})

    def answers(self, verb, payload):
        stream = {"stream_id": payload["stream_id"]}
        if verb == "MODEL_INFO":
            facts = {"lmtp": "1.1", "features": ["tokenizer", "constraint", "stop", "seed", "options", "cancel"]}
            yield line("MSG", model_info=facts | {"eos_ids": [255], "max_context": 64, "dtype": "float32"}, **stream)
        elif verb == "TOKENIZER":
            data, special = tokenizer_files(byte_tokenizer())
            yield line("MSG", tokenizer=data, special=dict(special), **stream)
        elif verb == "SCORE":
            for index, option in enumerate(payload["options"]):
                for place, id_ in enumerate(option):
                    reason = "stop" if place == len(option) - 1 else None
                    yield token(id_, -0.5 * (index + 1), index=index, finish_reason=reason, **stream)
                yield end("stop", index=index, **stream)
        elif self.error:
            yield end("error", error=self.error, **stream)
        else:
            for id_ in self.ids:
                yield token(id_, -1.0, index=0, finish_reason=None, top_logprobs={str(id_): -1.0, "66": -2.0}, **stream)
            if not self.hold:
                yield end("length", index=0, **stream)


def line(verb, **payload):
    return f"{verb} {json.dumps(payload)}\n"


def token(id_, logprob, **fields):
    return line("TOKEN", token=id_, logprob=logprob, **fields)


def end(reason, **fields):
    usage = {"usage": {"prompt_tokens": 1, "tokens": 1}, "timing": {"first_token_ms": 1.0, "total_ms": 2.0}}
    return line("END", finish_reason=reason, **(usage if "index" in fields else {}), **fields)


@contextlib.asynccontextmanager
async def page(model, folder, *, prompt=None, token=None):
    """The page over a model that the test plays; gives its HTTP client."""
    settings = Manifest(name="tiny", source="path:/x", cogsmith="0", prompt=prompt or Prompt())
    (folder / "model.json").write_bytes(settings.to_json())
    cog = Cog()
    cog.say_chunks = model.plan
    described = ServedModel("tiny", folder, "v", datetime.now(UTC), 4, SCHEMA, "")
    async with serving(cog.app) as cog_url:
        models, predictions = Models([ElsewhereWorker(described, cog_url)]), Predictions()
        demo = DemoModels(models, predictions)
        roots = [*LmtpRoutes(models, predictions, page=PATH).routes(), *DemoRoutes(demo).routes()]
        app = create_app(models, predictions, root_routes=roots, dependants=[demo])
        app = app if token is None else TokenAuth(app, token, open_folder=PATH)
        async with (
            serving(app) as url,
            httpx2.AsyncClient(base_url=url, timeout=20.0, trust_env=False, verify=False) as http,
        ):
            yield http


@pytest.fixture(autouse=True)
def _no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COGSMITH_CACHE", str(tmp_path / "cache"))


def asked(model, folder, path, body=None, **options):
    """The answer to one request: its lines of JSON, or the one object."""

    async def run():
        async with page(model, folder, **options) as http:
            send = http.get(PATH + "api/" + path) if body is None else http.post(PATH + "api/" + path, json=body)
            answer = await send
            if answer.headers["content-type"] == "application/x-ndjson":
                return answer.status_code, [json.loads(line) for line in answer.text.splitlines()]
            return answer.status_code, answer.json()

    return asyncio.run(run())


def generated(model, folder, **body):
    status, lines = asked(model, folder, f"{NAME}/generation", body)
    assert status == 200, lines
    return lines


def tokens_of(lines):
    return [token for line in lines for token in line.get("tokens", ())]


def ids(text):
    return byte_tokenizer().encode(text)


def test_the_page_is_whole_and_may_load_nothing_from_elsewhere(tmp_path):
    async def run():
        async with page(Model(), tmp_path) as http:
            answers = {path.name: await http.get(PATH + path.name) for path in FILES.iterdir()}
            return await http.get(PATH), answers, await http.get(PATH + "..%2froutes.py"), await http.get(PATH + "x.js")

    index, answers, outside, missing = asyncio.run(run())
    assert index.text == (FILES / "index.html").read_text()
    assert {answer.status_code for answer in answers.values()} == {200}
    assert all("script-src 'self'" in answer.headers["content-security-policy"] for answer in answers.values())
    assert {name: answer.headers["content-type"].partition(";")[0] for name, answer in answers.items()}["main.js"] == (
        "text/javascript"
    )
    assert (outside.status_code, missing.status_code) == (404, 404)
    assert not any("http" in (FILES / name).read_text().replace("http://www.w3.org", "") for name in answers)


def test_a_browser_is_led_to_the_page_and_a_program_is_not(tmp_path):
    async def run():
        async with page(Model(), tmp_path) as http:
            browser = await http.get("/", headers={"accept": "text/html,*/*"}, follow_redirects=False)
            return browser, await http.get("/"), await http.get("/demo", follow_redirects=False)

    browser, program, bare = asyncio.run(run())
    assert (browser.status_code, browser.headers["location"]) == (307, PATH)
    assert (bare.status_code, bare.headers["location"]) == (307, PATH)
    assert program.json()["models"] == {"tiny": "stopped"}


def test_with_a_token_the_page_is_open_and_what_it_asks_for_is_not(tmp_path):
    async def run():
        async with page(Model(), tmp_path, token="secret") as http:
            paths = (PATH, PATH + "main.js", PATH + "api/models", PATH + "api/models/tiny")
            bare = [(await http.get(path)).status_code for path in paths]
            posted = await http.post(PATH + "api/models/tiny/reading", json={"text": "a"})
            known = await http.get(PATH + "api/models", headers={"authorization": "Bearer secret"})
            return bare, posted.status_code, known.status_code

    assert asyncio.run(run()) == ([200, 200, 401, 401], 401, 200)


def test_a_form_of_another_site_can_ask_for_nothing(tmp_path):
    async def run():
        async with page(Model(), tmp_path) as http:
            headers = {"content-type": "text/plain"}
            return await http.post(f"{PATH}api/{NAME}/reading", content='{"text": "a"}', headers=headers)

    assert asyncio.run(run()).status_code == 415


def test_a_model_is_described_with_its_templates(tmp_path):
    status, described = asked(Model(), tmp_path, NAME, prompt=Prompt(template="alpaca"))
    assert status == 200
    assert (described["max_context"], described["dtype"]) == (64, "float32")
    own = described["templates"][0]
    assert own == {"id": "own", "name": "alpaca", "own": True, "conversation": False, "input": True}
    others = {one["id"]: one for one in described["templates"][1:]}
    assert others.keys() == set(templates.names()) - {"caption"}
    assert others["v1"]["conversation"]
    assert not others["v1"]["input"]


def test_what_a_template_takes_shows_when_it_is_used():
    assert abilities(templates.find("alpaca")) == {"conversation": False, "input": True}
    assert abilities(templates.find("dolly-v2")) == {"conversation": False, "input": False}
    assert abilities(templates.find("default")) == {"conversation": True, "input": False}
    assert abilities(Template("bad", "{{ raise_exception('no') }}")) == {"conversation": False, "input": False}


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


def test_a_model_that_is_not_served_is_not_found(tmp_path):
    assert asked(Model(), tmp_path, "models/other")[0] == 404


def spaced_tokenizer():
    """Words that carry their space, as SentencePiece has them: a text's first space is dropped."""
    vocabulary = {"<s>": 0, "▁a": 1, "▁the": 2, "s": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return ClientTokenizer(tokenizer)


def test_a_label_is_a_tokens_text_behind_other_text():
    labels = Labels(spaced_tokenizer())
    assert [labels[id_] for id_ in (1, 2, 3, 0, 77)] == [" a", " the", "s", "<s>", "[77]"]


def test_an_end_token_has_a_name_and_no_text():
    tokenizer = ClientTokenizer(byte_tokenizer().backend_tokenizer)
    (newline,) = ids("\n")
    shown = Shown(tokenizer, Labels(tokenizer), eos_ids={newline})
    (ended,) = shown.push(Token(newline, math.log(0.5), finish_reason="stop"))
    assert (ended["text"], ended["label"]) == ("", "\n")
