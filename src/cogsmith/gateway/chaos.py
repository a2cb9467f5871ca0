"""Faults made on purpose, so that a client's handling of them can be tried: `--chaos "429=0.2,cut=0.1,slow=5"`.

429=P       this share of requests is refused, to be sent again after a second
500=P       this share fails before anything is done; so do 502, 503, 504
cut=P       this share of streams is cut after some events, without their end
slow=SECONDS  every prediction starts so much later, as on a machine that has to boot
aborted=P   this share of predictions is aborted before it starts
seed=N      makes the choices repeatable
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cogsmith.errors import Problem, ProblemsError
from cogsmith.gateway.limits import is_stream, throttled
from cogsmith.gateway.models import ServedModel
from cogsmith.gateway.prediction import Change, Prediction
from cogsmith.gateway.problems import HTTPProblem
from cogsmith.gateway.worker import Worker

_FAILURES = ("500", "502", "503", "504")
_SHARES = ("429", *_FAILURES, "cut", "aborted")
_KEYS = (*_SHARES, "slow", "seed")
_RETRY_SECONDS = 1
_MOST_EVENTS = 8


class Chaos:
    """What goes wrong how often: `shares` by fault, and `slow` in seconds."""

    def __init__(self, shares: Mapping[str, float], *, slow: float = 0.0, seed: int | None = None) -> None:
        self.shares = dict(shares)
        self.slow = slow
        self._draws = random.Random(seed)

    def strikes(self, fault: str) -> bool:
        """Whether this fault happens now."""
        share = self.shares.get(fault, 0.0)
        return share > 0 and self._draws.random() < share

    def abort_some(self, prediction: Prediction, change: Change) -> None:
        """Abort a prediction that is about to start, if it is its turn; for `Predictions.subscribe`."""
        if change == "start" and self.strikes("aborted"):
            prediction.end("aborted")

    def events_before_cut(self) -> int:
        """How many events a stream that is cut may send."""
        return self._draws.randint(0, _MOST_EVENTS)


def parse(text: str) -> Chaos:
    """Read `KEY=VALUE,…` as described above. Raises ProblemsError with everything that is wrong in it."""
    values: dict[str, float] = {}
    problems: list[Problem] = []
    for entry in text.split(","):
        key, _, value = (part.strip() for part in entry.partition("="))
        if key not in _KEYS or key in values:
            what = "is given twice" if key in values else "is no fault that can be made"
            problems.append(Problem(f"{key!r} {what}", f"give each of {', '.join(_KEYS)} at most once"))
        elif (number := _number(value, most=1.0 if key in _SHARES else None)) is None:
            rule = "a share from 0 to 1" if key in _SHARES else "a number from 0"
            problems.append(
                Problem(f"{key} is {value!r}", f"give {rule}, such as {key}={0.2 if key in _SHARES else 5}")
            )
        else:
            values[key] = number
    if problems:
        raise ProblemsError("--chaos", problems)
    seed = values.pop("seed", None)
    return Chaos(values, slow=values.pop("slow", 0.0), seed=None if seed is None else int(seed))


class FaultyAnswers:
    """An ASGI middleware that refuses, fails and cuts as `chaos` says."""

    def __init__(self, app: ASGIApp, chaos: Chaos) -> None:
        self._app = app
        self._chaos = chaos

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or do not, or not to the end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif is_stream(scope):
            await self._stream(scope, receive, send)
        elif problem := self._problem():
            await problem.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _problem(self) -> HTTPProblem | None:
        if self._chaos.strikes("429"):
            return throttled(_RETRY_SECONDS)
        for status in _FAILURES:
            if self._chaos.strikes(status):
                return HTTPProblem(int(status), "Chaos", "This failure was asked for with --chaos")
        return None

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._chaos.strikes("cut"):
            await self._app(scope, receive, send)
            return
        left = self._chaos.events_before_cut()

        async def send_some(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.body":
                if left == 0:
                    raise _Cut
                left -= 1
            await send(message)

        try:
            await self._app(scope, receive, send_some)
        except _Cut:
            return  # the server closes a connection whose answer has no end


class SlowWorker(Worker):
    """A model whose predictions each wait `seconds` for it, as if it had to boot."""

    def __init__(self, model: ServedModel, seconds: float, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._seconds = seconds

    async def ready(self) -> str:
        """As the base class, later."""
        url = await super().ready()
        await asyncio.sleep(self._seconds)
        return url


class _Cut(Exception):
    """The stream is to end here."""


def _number(text: str, *, most: float | None) -> float | None:
    """The number, where it is one from 0 to `most`."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= (float("inf") if most is None else most) and number != float("inf") else None
