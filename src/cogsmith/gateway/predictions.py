"""The predictions of this gateway: making, finding, cancelling and forgetting them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import msgspec

from cogsmith.errors import Overloaded, ShuttingDown, UnknownResource
from cogsmith.gateway import dispatch
from cogsmith.gateway.files import FileStore
from cogsmith.gateway.prediction import Change, Prediction, Webhook
from cogsmith.gateway.worker import Worker

Listener = Callable[[Prediction, Change], None]

_log = logging.getLogger("cogsmith.gateway")

# How long a prediction that was ended for the gateway's own end may take to leave its server.
_LEAVE_SECONDS = 5.0
_GATEWAY_FAILED = "the gateway failed; its log says how"


@dataclass(frozen=True, slots=True)
class PredictionLimits:
    """What the gateway keeps: waiting predictions; bytes of one prediction, of all unfinished and of all finished ones;
    seconds."""

    waiting: int = 2000
    prediction_bytes: int = 256 * 2**20
    unfinished_bytes: int = 2048 * 2**20
    kept_bytes: int = 1024 * 2**20
    kept_seconds: float = 3600.0


class Predictions:
    """All predictions, in the order of their creation. An asynchronous context: leaving it ends them all.

    Their inputs may name uploaded `files`.
    """

    def __init__(self, limits: PredictionLimits | None = None, files: FileStore | None = None) -> None:
        self._limits = limits or PredictionLimits()
        self._files = files or FileStore()
        self._by_id: dict[str, Prediction] = {}
        self._by_stream_key: dict[str, Prediction] = {}
        self._tasks: dict[Prediction, asyncio.Task[None]] = {}
        self._kept: dict[Prediction, asyncio.TimerHandle] = {}  # the finished ones, oldest end first
        self._kept_bytes = 0
        self.runs: Counter[str] = Counter()
        """How many predictions each version has been asked for."""
        self._listeners: list[Listener] = []
        self._draining = False
        self._client = dispatch.client()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain(0.0)
        for prediction in list(self._kept):
            self._forget(prediction)
        await self._client.aclose()

    def create(
        self,
        worker: Worker,
        inputs: Mapping[str, Any],
        *,
        model_ref: str,
        deployment: str | None = None,
        webhook: Webhook | None = None,
        deadline: datetime | None = None,
    ) -> Prediction:
        """Start a prediction of `inputs`, which the model's schema must allow, on `worker`, and return at once.

        `model_ref` is the model as its caller names it ("owner/name"). Raises Overloaded, ShuttingDown.
        """
        size = len(msgspec.json.encode(inputs))
        self._check_room(size)
        self.runs[worker.model.version] += 1
        prediction = Prediction(
            number=self.runs.total(),
            model_ref=model_ref,
            version=worker.model.version,
            input=dict(inputs),
            size=size,
            notify=self._on_change,
            deployment=deployment,
            webhook=webhook,
            deadline=deadline,
        )
        self._by_id[prediction.id] = self._by_stream_key[prediction.stream_key] = prediction
        self._tasks[prediction] = asyncio.create_task(self._run(worker, prediction), name=prediction.id)
        return prediction

    def get(self, prediction_id: str) -> Prediction:
        """The prediction of this id. Raises UnknownResource."""
        return _find(self._by_id, prediction_id, "prediction")

    def by_stream_key(self, key: str) -> Prediction:
        """The prediction whose stream has this key. Raises UnknownResource."""
        return _find(self._by_stream_key, key, "stream")

    def newest_first(self) -> Iterator[Prediction]:
        """All that are known."""
        return reversed(self._by_id.values())

    def cancel(self, prediction_id: str) -> Prediction:
        """End the prediction as canceled, if it has not ended; its server is told. Raises UnknownResource."""
        prediction = self.get(prediction_id)
        prediction.end("canceled")
        return prediction

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with each change of each prediction, as it happens. It must return at once."""
        self._listeners.append(listener)

    async def drain(self, seconds: float) -> None:
        """Take no more predictions, let those there are run for `seconds`, then cancel what is left of them."""
        self._draining = True
        if not self._tasks:
            return
        if seconds > 0:
            await asyncio.wait(self._tasks.values(), timeout=seconds)
        for prediction in list(self._tasks):
            prediction.explain("the gateway has shut down")
            prediction.end("canceled")
        tasks = set(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LEAVE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _check_room(self, size: int) -> None:
        if self._draining:
            raise ShuttingDown("the gateway is shutting down and takes no more predictions")
        waiting = sum(prediction.status == "starting" for prediction in self._tasks)
        if waiting >= self._limits.waiting:
            raise Overloaded(
                f"{waiting} predictions are waiting already, which is the most this gateway queues",
                fix="try again when some have ended, or start the gateway with a longer queue",
            )
        most = self._limits.unfinished_bytes
        if sum(prediction.size for prediction in self._tasks) + size > most:
            raise Overloaded(
                f"unfinished predictions would take more than {most} bytes, which is the most this gateway holds",
                fix="try again when some have ended",
            )

    async def _run(self, worker: Worker, prediction: Prediction) -> None:
        timer = self._cancel_at_deadline(prediction)
        try:
            await dispatch.run(self._client, worker, prediction, self._files)
        except Exception:
            _log.exception("prediction %s", prediction.id)
            prediction.explain(_GATEWAY_FAILED)
            prediction.end("failed", error=_GATEWAY_FAILED)
        finally:
            prediction.end("canceled")  # where this task itself was cancelled
            if timer is not None:
                timer.cancel()
            del self._tasks[prediction]

    def _cancel_at_deadline(self, prediction: Prediction) -> asyncio.TimerHandle | None:
        if prediction.deadline is None:
            return None
        seconds = (prediction.deadline - datetime.now(UTC)).total_seconds()
        return asyncio.get_running_loop().call_later(seconds, prediction.end, "canceled")

    def _on_change(self, prediction: Prediction, change: Change) -> None:
        for listener in self._listeners:
            listener(prediction, change)
        if change == "completed":
            self._keep(prediction)
        elif prediction.size > self._limits.prediction_bytes:
            prediction.end("failed", error=f"it grew beyond the {self._limits.prediction_bytes} bytes kept of one")

    def _keep(self, prediction: Prediction) -> None:
        """Keep a finished prediction for its time, or until newer ones need its room."""
        loop = asyncio.get_running_loop()
        self._kept[prediction] = loop.call_later(self._limits.kept_seconds, self._forget, prediction)
        self._kept_bytes += prediction.size
        while self._kept_bytes > self._limits.kept_bytes and len(self._kept) > 1:
            self._forget(next(iter(self._kept)))

    def _forget(self, prediction: Prediction) -> None:
        self._kept.pop(prediction).cancel()
        self._kept_bytes -= prediction.size
        del self._by_id[prediction.id], self._by_stream_key[prediction.stream_key]


def _find(predictions: Mapping[str, Prediction], key: str, what: str) -> Prediction:
    try:
        return predictions[key]
    except KeyError:
        raise UnknownResource(f"there is no {what} {key!r} here: finished ones are kept for a while only") from None
