"""The served models as the page's client sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from cogsmith import manifest
from cogsmith.client.client import AsyncClient
from cogsmith.client.tokenizer import ClientTokenizer
from cogsmith.client.transport import Timeouts
from cogsmith.errors import (
    Overloaded,
    PredictionCanceled,
    PredictionFailed,
    RateLimited,
    RequestError,
    RequestRejected,
)
from cogsmith.gateway import present
from cogsmith.gateway.demo.asked import Asked
from cogsmith.gateway.demo.shown import Labels
from cogsmith.gateway.models import Models
from cogsmith.gateway.predictions import Predictions
from cogsmith.gateway.worker import Worker
from cogsmith.lmtp import AnyOperation, serialize_batch
from cogsmith.prompts import templates
from cogsmith.prompts.messages import takes_input, with_system
from cogsmith.prompts.templates import Template

OWN = "own"
"""The id of a model's own template."""

_WITHOUT_WORDS = ("caption",)  # for an image alone
_INSTRUCTION = {"role": "user", "content": "a"}
_CONVERSATION = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]


class InProcessTransport:
    """Runs batches as predictions of this gateway. Implements `client.transport.Transport`."""

    ends_by_itself = True

    def __init__(self, worker: Worker, predictions: Predictions) -> None:
        self._worker = worker
        self._predictions = predictions

    async def run(self, operations: Sequence[AnyOperation]) -> AsyncGenerator[str]:
        """Run the operations as one prediction: see `Transport`."""
        name = f"{present.LOCAL_OWNER}/{self._worker.model.name}"
        batch = {"ops_batch_json": serialize_batch(operations)}
        try:
            prediction = self._predictions.create(self._worker, batch, model_ref=name)
        except Overloaded as error:
            raise RateLimited(error.message, fix=error.fix) from error
        try:
            async for chunk in prediction.chunks_from():
                yield chunk
        finally:
            if not prediction.ended:
                self._predictions.cancel(prediction.id)
        if prediction.status in ("canceled", "aborted"):
            raise PredictionCanceled("the prediction was cancelled")
        if prediction.status != "succeeded":
            raise PredictionFailed(f"the prediction {prediction.status}: {prediction.error or 'no reason given'}")

    async def aclose(self) -> None:
        """Nothing is held."""


class DemoModel:
    """One served model: its client, and how it may be talked to."""

    def __init__(self, worker: Worker, predictions: Predictions) -> None:
        self.worker = worker
        self.client = AsyncClient(InProcessTransport(worker, predictions), timeouts=Timeouts())
        self._labels: Labels | None = None
        self._packaged = manifest.read(worker.model.folder).prompt

    async def templates(self) -> dict[str, Template]:
        """The templates by their ids, the model's own first, where it has one."""
        tokenizer = await self.client.tokenizer()
        own = self._own(tokenizer)
        named = {name: templates.find(name) for name in templates.names() if name not in _WITHOUT_WORDS}
        return ({OWN: own} if own else {}) | named

    async def labels(self) -> Labels:
        """What its tokens are called."""
        if self._labels is None:
            self._labels = Labels(await self.client.tokenizer())
        return self._labels

    async def encode(self, asked: Asked) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the prompt's ids, and the texts at which an answer to it ends. Raises RequestRejected."""
        tokenizer = await self.client.tokenizer()
        if asked.text is not None:
            return tokenizer.encode(asked.text), ()
        known = await self.templates()
        if asked.template not in known:
            raise RequestRejected(f"there is no template {asked.template!r}", fix=f"use one of {', '.join(known)}")
        template = known[asked.template]
        # A system prompt that is packaged with the model goes with its own template, and no other.
        system = asked.system or (self._packaged.system if asked.template == OWN else "")
        try:
            messages = with_system([message.to_dict() for message in asked.messages], system)
            return tokenizer.encode_with(template, messages), template.stop
        except RequestError as error:
            raise RequestRejected(error.message, fix=error.fix) from error

    def _own(self, tokenizer: ClientTokenizer) -> Template | None:
        """The template packaged with the model, else its tokenizer's."""
        found = templates.packaged(self._packaged)
        if found is None and tokenizer.chat_template is not None:
            return Template(OWN, tokenizer.chat_template, self._packaged.stop or ())
        return found


def abilities(template: Template) -> dict[str, bool]:
    """Whether it takes a conversation, or one instruction only; and whether it has a place for an instruction's input.

    What a template does shows when it is used.
    """
    with_input = _rendered(template, [_INSTRUCTION | {"input": "b"}])
    return {
        "conversation": _rendered(template, _CONVERSATION) is not None,
        "input": takes_input(template.text) and _rendered(template, [_INSTRUCTION]) != with_input,
    }


def _rendered(template: Template, messages: Sequence[Mapping[str, str]]) -> str | None:
    try:
        return template.render(messages)
    except RequestError:
        return None


class DemoModels:
    """All served models. An asynchronous context: leaving it ends what the page's clients still run."""

    def __init__(self, models: Models, predictions: Predictions) -> None:
        self._models = models
        self._predictions = predictions
        self._opened: dict[str, DemoModel] = {}

    def workers(self) -> list[Worker]:
        """Every model, in the order in which they were named."""
        return self._models.all()

    def find(self, name: str) -> DemoModel:
        """Return the model called `name`. Raises UnknownResource."""
        worker = self._models.find(present.LOCAL_OWNER, name)
        if worker.model.name not in self._opened:
            self._opened[worker.model.name] = DemoModel(worker, self._predictions)
        return self._opened[worker.model.name]

    async def __aenter__(self) -> DemoModels:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(model.client.aclose() for model in self._opened.values()))
