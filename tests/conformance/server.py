"""A server of LMTP as the cases see it: a batch of operations goes in, lines come out. Plain Python and JSON.

Nothing here is shared with the program, so that a fault of its parser cannot hide one of its writer.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Operation = list[Any]
"""A verb and its payload, as in a batch."""

ANSWER_SECONDS = 120

_TOKEN_1_0 = {"token", "stream_id", "logprob", "finish_reason"}
_TOKEN_1_1 = _TOKEN_1_0 | {"index"}


def generate(stream_id: int, prompt: list[int], **fields: Any) -> Operation:
    return ["GENERATE", {"prompt": prompt, "stream_id": stream_id, **fields}]


def score(stream_id: int, prompt: list[int], scored: list[int]) -> Operation:
    return ["SCORE", {"prompt": prompt, "scored": scored, "stream_id": stream_id}]


def extended(operation: Operation, **fields: Any) -> Operation:
    """The operation in LMTP 1.1, with more fields."""
    verb, payload = operation
    return [verb, {**payload, "lmtp": "1.1", **fields}]


class Server(ABC):
    """A server under test, and what it says of itself."""

    takes_batches = True
    """Whether several operations reach it as one batch; else each goes as a line of its own."""
    only_1_0 = False
    """Whether it is to be spoken to as a client of LMTP 1.0 does."""
    checkpoint: Path
    """The folder of its model."""

    @abstractmethod
    def lines(self, batch: str) -> Iterator[str]:
        """Send a batch's text; yield lines `VERB {…}` as they come, to the end of all streams.

        Closing this early is leaving: the server is to drop what was asked.
        """

    def send(self, *operations: Operation) -> Answers:
        """Send a batch; return all answers, which must follow the rules that hold for any."""
        answers = self.send_text(json.dumps(operations))
        answers.check(operations)
        return answers

    def send_text(self, batch: str) -> Answers:
        """Send what may be no batch at all."""
        answers = Answers()
        for line in self.lines(batch):
            answers.add(line)
        return answers

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        """What MODEL_INFO tells."""
        ((verb, payload),) = self.send_text('[["MODEL_INFO", {"stream_id": 1}]]').all
        assert (verb, payload["stream_id"]) == ("MSG", 1)
        return payload["model_info"]

    @property
    def features(self) -> set[str]:
        """The parts of LMTP 1.1 that it serves."""
        return set() if self.only_1_0 or self.info.get("lmtp") != "1.1" else set(self.info.get("features", ()))


class Answers:
    """What came back: (verb, payload) in order of arrival."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []

    def add(self, line: str) -> dict[str, Any]:
        """Take a line; return its payload. JSON has no NaN and no Infinity."""
        verb, space, text = line.partition(" ")
        assert space
        payload = json.loads(text, parse_constant=_no_json)
        assert line.isascii()
        assert isinstance(payload, dict)
        self.all.append((verb, payload))
        return payload

    def of(self, stream_id: int | None, index: int | None = None) -> list[dict[str, Any]]:
        """The payloads of a stream; with `index`, of one branch without its END."""
        payloads = [payload for verb, payload in self.all if payload["stream_id"] == stream_id]
        if index is None:
            return payloads
        return [payload for payload in payloads if payload.get("index") == index and "token" in payload]

    def tokens(self, stream_id: int, index: int | None = None) -> list[int]:
        return [payload["token"] for payload in self.of(stream_id, index)]

    def end(self, stream_id: int, index: int | None = 0) -> dict[str, Any]:
        """The END of a branch, or of a stream that had none."""
        (end,) = [
            payload
            for verb, payload in self.all
            if verb == "END" and payload["stream_id"] == stream_id and payload.get("index") == index
        ]
        return end

    def error(self, stream_id: int | None) -> str:
        """The message of a stream that is an error and nothing else."""
        (payload,) = self.of(stream_id)
        return payload["error"]

    def check(self, operations: tuple[Operation, ...]) -> None:
        """Every stream ends, once, and nothing follows; nothing of 1.1 is told to a stream of 1.0."""
        for verb, payload in operations:
            if verb in ("GENERATE", "SCORE"):
                stream_id = payload["stream_id"]
                (self._check_branches if "lmtp" in payload else self._check_stream)(verb, stream_id)

    def _check_stream(self, verb: str, stream_id: int) -> None:
        *tokens, last = self.of(stream_id)
        assert all(payload.get("finish_reason", "") is None for payload in tokens)
        assert "error" in last or last["finish_reason"] in ("stop", "length")
        listed = {"top_logprobs"} if verb == "GENERATE" else set()
        for payload in [*tokens, last]:
            assert payload.keys() == ({"stream_id", "error"} if "error" in payload else _TOKEN_1_0 | listed)
        assert {verb for verb, payload in self.all if payload["stream_id"] == stream_id} == {"TOKEN"}

    def _check_branches(self, verb: str, stream_id: int) -> None:
        mine = [(verb, payload) for verb, payload in self.all if payload["stream_id"] == stream_id]
        for index in {payload.get("index") for _, payload in mine}:
            *tokens, (verb, end) = [pair for pair in mine if pair[1].get("index") == index]
            assert verb == "END"
            assert isinstance(end["finish_reason"], str)
            assert all(verb == "TOKEN" and payload.keys() >= _TOKEN_1_1 for verb, payload in tokens)
            reasons = [payload["finish_reason"] for _, payload in tokens]
            assert reasons[:-1] == [None] * len(reasons[:-1])
            assert reasons[-1:] in ([], [None], [end["finish_reason"]])


class Underway(threading.Thread):
    """A batch that is being answered, on a thread of its own."""

    def __init__(self, server: Server, *operations: Operation) -> None:
        super().__init__(daemon=True)
        self._lines = server.lines(json.dumps(operations))
        self._answers = Answers()
        self._arrived = threading.Condition()
        self._leaving = False
        self._failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with contextlib.closing(self._lines):  # type: ignore[type-var]
                for line in self._lines:
                    with self._arrived:
                        self._answers.add(line)
                        self._arrived.notify_all()
                    if self._leaving:
                        return
        except BaseException as error:
            self._failure = error
            raise

    def wait_for(self, count: int) -> None:
        """Wait until so many lines have come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self._answers.all) >= count, timeout=ANSWER_SECONDS)

    def leave(self) -> None:
        """Drop the connection, with the next line at the latest."""
        self._leaving = True
        self.answers()

    def answers(self) -> Answers:
        """Wait for the end."""
        self.join(ANSWER_SECONDS)
        assert not self.is_alive(), "a stream did not end"
        assert self._failure is None
        return self._answers


def _no_json(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")
