"""The page's part of the gateway, before a model that the test plays."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime

import httpx2

from cogsmith.gateway.app import create_app
from cogsmith.gateway.demo.models import DemoModels
from cogsmith.gateway.demo.routes import PATH, DemoRoutes
from cogsmith.gateway.limits import TokenAuth
from cogsmith.gateway.models import Models, ServedModel
from cogsmith.gateway.predictions import Predictions
from cogsmith.gateway.websocket import LmtpRoutes
from cogsmith.manifest import Manifest, Prompt
from cogsmith.predictor.tokenizer import tokenizer_files

from ..engine.models import byte_tokenizer
from .stand_in import SCHEMA, Cog, ElsewhereWorker, said, serving

NAME = "models/tiny"
MAX_BODY = 2**23


class Model:
    """Answers LMTP as a server of 1.1 does: with `ids`, one chunk each; `asked` are the operations it was sent.

    With `hold` it says no more after them until it is cancelled. `facts` are more of what it says of itself; `inputs`
    are those of its predictions.
    """

    def __init__(self, ids=(), *, hold=False, error=None, **facts):
        self.ids = ids
        self.hold = hold
        self.error = error
        self.facts = facts
        self.inputs = []
        self.asked = []
        self.cancelled = asyncio.Event()

    async def plan(self, inputs, cancelled):
        self.inputs.append(inputs)
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
            facts |= {"eos_ids": [255], "max_context": 64, "dtype": "float32", **self.facts}
            yield line("MSG", model_info=facts, **stream)
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
        roots = [*LmtpRoutes(models, predictions, page=PATH).routes(), *DemoRoutes(demo, MAX_BODY).routes()]
        app = create_app(models, predictions, root_routes=roots, dependants=[demo])
        app = app if token is None else TokenAuth(app, token, open_folder=PATH)
        async with (
            serving(app) as url,
            httpx2.AsyncClient(base_url=url, timeout=20.0, trust_env=False, verify=False) as http,
        ):
            yield http


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
