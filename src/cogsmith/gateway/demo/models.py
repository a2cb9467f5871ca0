"""The served models as the page's client sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from cogsmith import manifest
from cogsmith.client.client import AsyncClient
from cogsmith.client.images import inputs_of
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
from cogsmith.lmtp import AnyOperation
from cogsmith.prompts import templates
from cogsmith.prompts.messages import takes_input, with_system
from cogsmith.prompts.templates import Template

OWN = "own"
"""The id of a model's own template."""

_WITHOUT_WORDS = ("caption",)  # for an image alone
_INSTRUCTION = {"role": "user", "content": "a"}
_CONVERSATION = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]


class InProcessTransport:
    """Runs batches as predictions of this gateway, each with `images`, as data URIs.

    `image_transform` is how they become pixels; empty, as the package says. Implements `client.transport.Transport`.
    """

    ends_by_itself = True

    def __init__(
        self, worker: Worker, predictions: Predictions, images: Sequence[str] = (), image_transform: str = ""
    ) -> None:
        self._worker = worker
        self._predictions = predictions
        self._images = images
        self._image_transform = image_transform

    async def run(self, operations: Sequence[AnyOperation]) -> AsyncGenerator[str]:
        """Run the operations as one prediction: see `Transport`."""
        name = f"{present.LOCAL_OWNER}/{self._worker.model.name}"
        inputs = inputs_of(operations, self._images)
        if "image" in inputs and self._image_transform:
            inputs["image_transform"] = self._image_transform
        try:
            prediction = self._predictions.create(self._worker, inputs, model_ref=name)
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


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt's ids, the texts at which an answer to it ends, and the client that sends its images along."""

    ids: tuple[int, ...]
    stops: tuple[str, ...]
    client: AsyncClient


class DemoModel:
    """One served model: its client, and how it may be talked to."""

    def __init__(self, worker: Worker, predictions: Predictions) -> None:
        self.worker = worker
        self._predictions = predictions
        self.client = AsyncClient(InProcessTransport(worker, predictions), timeouts=Timeouts())
        self._labels: Labels | None = None
        self._manifest = manifest.read(worker.model.folder)

    @property
    def image_transform(self) -> str:
        """How images become pixels where a request does not say."""
        return self._manifest.image_transform

    async def placeholder(self) -> str:
        """What stands for an image in a prompt; empty for a model that reads none."""
        return str((await self.client.model_info()).get("image_token") or "")

    async def templates(self) -> dict[str, Template]:
        """The templates by their ids, the model's own first, where it has one."""
        tokenizer = await self.client.tokenizer()
        own = self._own(tokenizer)
        without = () if await self.placeholder() else _WITHOUT_WORDS
        named = {name: templates.find(name) for name in templates.names() if name not in without}
        return ({OWN: own} if own else {}) | named

    async def labels(self) -> Labels:
        """What its tokens are called."""
        if self._labels is None:
            self._labels = Labels(await self.client.tokenizer())
        return self._labels

    async def prompted(self, asked: Asked) -> Prompted:
        """Return the prompt, ready to be sent. Raises RequestRejected."""
        tokenizer = await self.client.tokenizer()
        client, images = self.client, asked.all_images
        placeholder = await self.placeholder()
        if images:
            if not placeholder:
                raise RequestRejected("images are given, and this model reads none", fix="leave them out")
            tokenizer = tokenizer.with_images(placeholder, len(images))
            way = InProcessTransport(self.worker, self._predictions, images, asked.image_transform)
            client = client.through(way)
        if asked.text is not None:
            return Prompted(tokenizer.encode(asked.text), (), client)
        template = await self._template(asked)
        # A system prompt that is packaged with the model goes with its own template, and no other.
        system = asked.system or (self._manifest.prompt.system if asked.template == OWN else "")
        try:
            messages = with_system([message.to_dict(placeholder) for message in asked.messages], system)
            return Prompted(tokenizer.encode_with(template, messages), template.stop, client)
        except RequestError as error:
            raise RequestRejected(error.message, fix=error.fix) from error

    async def _template(self, asked: Asked) -> Template:
        known = await self.templates()
        if asked.template not in known:
            raise RequestRejected(f"there is no template {asked.template!r}", fix=f"use one of {', '.join(known)}")
        return known[asked.template]

    def _own(self, tokenizer: ClientTokenizer) -> Template | None:
        """The template packaged with the model, else its tokenizer's."""
        found = templates.packaged(self._manifest.prompt)
        if found is None and tokenizer.chat_template is not None:
            return Template(OWN, tokenizer.chat_template, self._manifest.prompt.stop or ())
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
