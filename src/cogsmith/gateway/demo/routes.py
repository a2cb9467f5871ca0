"""What the page is made of, and what it asks for.

GET  /demo/                              the page; its files beside it
GET  /demo/api/models                    names and states
GET  /demo/api/models/NAME               facts and templates, once the model is ready
POST /demo/api/models/NAME/generation    lines of JSON: the prompt, tokens as they come, the end
POST /demo/api/models/NAME/comparison    options with their tokens
POST /demo/api/models/NAME/reading       a text's tokens
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from cogsmith.client.results import Token
from cogsmith.client.stream import Stream
from cogsmith.client.tokenizer import ClientTokenizer
from cogsmith.errors import CogsmithError, RateLimited, RequestRejected, UnknownResource, UserError
from cogsmith.gateway.demo.asked import IMAGE_KINDS, Comparison, Generation, Reading, read
from cogsmith.gateway.demo.models import OWN, DemoModel, DemoModels, abilities
from cogsmith.gateway.demo.shown import Shown, described, spelled
from cogsmith.gateway.present import Json
from cogsmith.gateway.problems import HTTPProblem
from cogsmith.gateway.routes.bodies import read_object
from cogsmith.gateway.routes.resource import resource
from cogsmith.manifest import MAX_IMAGE_PIXELS, MAX_IMAGES

PATH = "/demo/"
"""Where the page is. What lies directly below it is the same for everybody, and secret to nobody."""

_FILES = Path(__file__).with_name("page")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    # Only the page's own files, and nothing that a model writes, can be run, shown or called.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# Of a request's bytes, what images leave to the rest of it.
_ROOM_FOR_WORDS = 2**20
_SAID = ("parameters", "dtype", "device", "engine", "quantization", "vocab_size", "max_context", "architecture")


class DemoRoutes:
    """The page and its JSON, over the served models. A request of it may have `max_body` bytes."""

    def __init__(self, models: DemoModels, max_body: int) -> None:
        self._models = models
        self._max_body = max_body

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        api = [
            resource("/models", GET=self._list),
            resource("/models/{name}", GET=_answered(self._describe)),
            resource("/models/{name}/generation", POST=_answered(self._generate)),
            resource("/models/{name}/comparison", POST=_answered(self._compare)),
            resource("/models/{name}/reading", POST=_answered(self._read)),
        ]
        return [
            Route("/demo", _to_page),
            Route("/demo/{file}", _file),
            Route(PATH, _file),
            Mount("/demo/api", routes=api),
        ]

    async def _list(self, request: Request) -> Response:
        return Json([{"name": worker.model.name, "state": worker.state} for worker in self._models.workers()])

    async def _describe(self, request: Request) -> Response:
        model = self._models.find(request.path_params["name"])
        facts = await model.client.model_info()
        templates = await model.templates()
        return Json(
            {
                "name": model.worker.model.name,
                **{name: facts.get(name) for name in _SAID},
                "templates": [
                    {"id": id_, "name": found.name, "own": id_ == OWN, **abilities(found)}
                    for id_, found in templates.items()
                ],
                "images": await self._images(model),
            }
        )

    async def _images(self, model: DemoModel) -> dict[str, Any] | None:
        """What the page has to know of images before it sends any; None for a model that reads none."""
        placeholder = await model.placeholder()
        if not placeholder:
            return None
        return {
            "placeholder": placeholder,
            "transform": model.image_transform,
            "kinds": IMAGE_KINDS,
            "most": MAX_IMAGES,
            "pixels": MAX_IMAGE_PIXELS,
            "bytes": max(0, self._max_body - _ROOM_FOR_WORDS),
        }

    async def _generate(self, request: Request) -> Response:
        model = self._models.find(request.path_params["name"])
        asked = read(await read_object(request), Generation)
        continuation = await Continuation.begun(model, asked)
        return _Lines(continuation.lines())

    async def _compare(self, request: Request) -> Response:
        model = self._models.find(request.path_params["name"])
        asked = read(await read_object(request), Comparison)
        prompted = await model.prompted(asked)
        scored = await prompted.client.score(prompted.ids, asked.options)
        labels = await model.labels()
        options = [
            {"text": text, "tokens": [described(token, labels) for token in one.tokens]}
            for text, one in zip(asked.options, scored, strict=True)
        ]
        return Json({"prompt_tokens": len(prompted.ids), "options": options})

    async def _read(self, request: Request) -> Response:
        model = self._models.find(request.path_params["name"])
        asked = read(await read_object(request), Reading)
        tokenizer = await model.client.tokenizer()
        ids = tokenizer.encode(asked.text)
        (scored,) = await model.client.score((), [ids], top_logprobs=asked.alternatives)
        tokens = spelled(scored.tokens, tokenizer, await model.labels())
        # The first has nothing before it, so nothing was predicted: its 0.0 is no log-probability.
        tokens[0] |= {"logprob": None, "top": []}
        return Json({"tokens": tokens})


class Continuation:
    """One answer on its way to the page."""

    def __init__(self, prompt: tuple[int, ...], begun: list[dict[str, Any]], shown: Shown, stream: Stream) -> None:
        self._num_prompt = len(prompt)
        self._begun = begun
        self._shown = shown
        self._stream = stream

    @classmethod
    async def begun(cls, model: DemoModel, asked: Generation) -> Continuation:
        """Begin it. Raises RequestRejected for what has no meaning."""
        tokenizer = await model.client.tokenizer()
        prompted = await model.prompted(asked)
        if asked.begun and asked.constraint is not None:
            raise RequestRejected(
                "what has begun cannot go on under a constraint", fix="a constraint holds from an answer's first token"
            )
        if unknown := [id_ for id_ in asked.begun if id_ not in tokenizer]:
            raise RequestRejected(f"begun holds {unknown[0]}, which is no token of this model")
        stops = prompted.stops
        stream = prompted.client.generate((*prompted.ids, *asked.begun), **_options(asked, stops, tokenizer))
        eos_ids = frozenset((await model.client.model_info()).get("eos_ids") or ())
        shown = Shown(tokenizer, await model.labels(), prompted.ids, () if asked.constraint else stops, eos_ids)
        begun = [one for id_ in asked.begun for one in shown.push(Token(id_, 0.0))]
        return cls(prompted.ids, begun, shown, stream)

    async def lines(self) -> AsyncGenerator[bytes]:
        """Yield lines of JSON. Closing this before its end cancels it."""
        try:
            yield _line({"prompt_tokens": self._num_prompt, "begun": [one["text"] for one in self._begun]})
            async for tokens in self._tokens():
                yield _line({"tokens": tokens})
            yield _line({"end": self._end()})
        except CogsmithError as error:
            yield _line({"error": error.message, "fix": error.fix})
        finally:
            # Where the reader has left, this runs in a scope that is cancelled already.
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    async def _tokens(self) -> AsyncIterator[list[dict[str, Any]]]:
        async for token in self._stream:
            if tokens := self._shown.push(token):
                yield tokens
            if self._shown.stop is not None:
                return
        if tokens := self._shown.flush():
            yield tokens

    def _end(self) -> dict[str, Any]:
        stopped = self._shown.stop is not None
        timing = self._stream.timing
        return {
            "reason": "stop_sequence" if stopped else self._stream.finish_reason,
            "stop": self._shown.stop,
            "timing": None if timing is None else msgspec.to_builtins(timing),
        }


class _Lines(StreamingResponse):
    """A stream that ends when its reader leaves, also while there is nothing to send."""

    def __init__(self, lines: AsyncGenerator[bytes]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._body = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        async with anyio.create_task_group() as running:

            async def watch() -> None:
                await self.listen_for_disconnect(receive)
                running.cancel_scope.cancel()

            running.start_soon(watch)
            async with contextlib.aclosing(self._body):
                with contextlib.suppress(OSError):  # the reader has left
                    await self.stream_response(send)
            running.cancel_scope.cancel()


def _options(asked: Generation, stops: tuple[str, ...], tokenizer: ClientTokenizer) -> Any:
    """What the client is to be asked for."""
    options: dict[str, Any] = {
        "max_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        # LMTP has no smallest set of no probability; that of the least is the likeliest token alone.
        "top_p": max(asked.top_p, 1e-6),
        "top_logprobs": asked.alternatives,
    }
    if asked.seed is not None:
        options["seed"] = asked.seed
    if asked.constraint is not None:
        return options | {"constraint": asked.constraint}
    # A stop that is a special token has no text that could be found.
    return options | {"stop": [[id_] for id_ in tokenizer.split_stops(stops).ids]}


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _answered(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """`handler`, with what the client raises as a problem."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except UnknownResource:
            raise
        except UserError as error:
            status = 422 if isinstance(error, RequestRejected) else 429 if isinstance(error, RateLimited) else 502
            detail = f"{error.message} ({error.fix})" if error.fix else error.message
            raise HTTPProblem(status, "This cannot be answered", detail) from error

    return answer


async def _to_page(request: Request) -> Response:
    return RedirectResponse(PATH)


async def _file(request: Request) -> Response:
    name = request.path_params.get("file", "index.html")
    path = _FILES / name
    with contextlib.suppress(OSError):
        if path.parent == _FILES and path.suffix in _TYPES and path.is_file():
            return FileResponse(path, media_type=_TYPES[path.suffix], headers=_HEADERS)
    raise UnknownResource(f"the page has no file {name!r}")
