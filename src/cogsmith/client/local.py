"""A model in this process: the engine and the predictor of a container, without Cog and without a socket."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import cogsmith
from cogsmith import manifest
from cogsmith.client.images import reads_prompts
from cogsmith.client.once import Once
from cogsmith.engine.base import Engine
from cogsmith.engine.open import open_engine, task_of
from cogsmith.errors import EndpointError, PredictionFailed, RequestError, RequestRejected
from cogsmith.lmtp import AnyOperation, serialize_batch
from cogsmith.manifest import ImageTransform, Limits, Manifest
from cogsmith.predictor.images import open_pictures
from cogsmith.predictor.mailbox import Cancelled, Mailbox
from cogsmith.predictor.meter import Meter
from cogsmith.predictor.session import Session

if TYPE_CHECKING:
    from cogsmith.engine.images import Images

_MAX_PREDICTIONS = 64


@dataclass(frozen=True, slots=True)
class _Served:
    """A model that runs."""

    engine: Engine
    tokenizer: Any
    limits: Limits
    images: Images | None
    image_transform: ImageTransform


class LocalTransport:
    """Runs batches on the work directory or checkpoint folder `folder`. Implements `Transport`.

    The model is loaded by the first prediction, with `model_args` over what the work directory says. `images` are the
    files of the images that prompts may be about.
    """

    ends_by_itself = True

    def __init__(self, folder: Path, model_args: Mapping[str, Any], images: Sequence[Path] = ()) -> None:
        self._folder = folder
        self._model_args = model_args
        self._images = images
        self._threads = ThreadPoolExecutor(_MAX_PREDICTIONS, thread_name_prefix="local-prediction")
        self._served = Once(self._serve)
        self._engines: list[Engine] = []

    async def run(self, operations: Sequence[AnyOperation]) -> AsyncGenerator[str]:
        """Run the operations as one prediction: see `Transport`."""
        served = await self._served.get()
        mailbox = Mailbox(served.limits.timeout_seconds)
        files = self._images if reads_prompts(operations) else ()
        try:
            pictures = await asyncio.to_thread(open_pictures, files, served.images, served.image_transform)
        except RequestError as error:
            raise RequestRejected(error.message, fix=error.fix) from error
        session = Session(
            served.engine, served.limits, mailbox, Meter(_ignore), tokenizer=served.tokenizer, pictures=pictures
        )
        chunks: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(item: str | Exception | None) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, item)

        running = loop.run_in_executor(self._threads, _run, session, serialize_batch(operations), put)
        try:
            while (chunk := await chunks.get()) is not None:
                if isinstance(chunk, Exception):
                    raise PredictionFailed(f"the prediction failed: {chunk!r}") from chunk
                yield chunk
        finally:
            mailbox.cancel()
            await running

    async def aclose(self) -> None:
        """End all predictions and free the model. Idempotent."""
        await self._served.aclose()
        for engine in self._engines:
            await asyncio.to_thread(engine.close)
        self._engines.clear()
        self._served = Once(self._serve)  # the other holder of the model
        self._threads.shutdown(wait=False)
        _free_memory()

    async def _serve(self) -> _Served:
        try:
            served = await asyncio.to_thread(_open, self._folder, self._model_args)
        except (OSError, ValueError) as error:
            raise EndpointError(
                f"{self._folder} cannot be loaded: {error}", fix="give a work directory or a checkpoint folder"
            ) from error
        self._engines.append(served.engine)
        return served


def _open(folder: Path, model_args: Mapping[str, Any]) -> _Served:
    if (folder / manifest.FILE_NAME).is_file():
        settings = manifest.read(folder)
        model_args = {**manifest.model_args(settings, os.environ), **manifest.understood(model_args)}
    else:
        settings = Manifest(
            name=folder.name,
            source=str(folder),
            cogsmith=cogsmith.__version__,
            task=task_of(folder),
            checkpoint=".",
        )
        model_args = manifest.understood(model_args)
    engine, tokenizer, images = open_engine(settings, folder, model_args)
    return _Served(engine, tokenizer, settings.limits, images, settings.image_transform)


def _free_memory() -> None:
    """Give back what an engine held: its parts know one another, and torch keeps a GPU's memory for itself."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _run(session: Session, batch: str, put: Callable[[str | Exception | None], None]) -> None:
    """Run a session to its end, on a thread of its own: its chunks, then None or what went wrong."""
    try:
        for chunk in session.run(batch):
            put(chunk)
        put(None)
    except Cancelled:
        put(None)
    except Exception as error:
        put(error)


def _ignore(name: str, value: float) -> None:
    """Take a metric: nobody here asks for it."""
