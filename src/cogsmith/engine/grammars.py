"""Grammars of constraints: each compiled and followed in a process of its own, which `grammar_worker` is.

Requests with the same constraint, such as the branches of one operation, share its process, which stays for a while.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import Constraint
from cogsmith.errors import RequestError

_MOST_GRAMMARS = 64
_START_SECONDS = 60.0
"""Wall-clock time for the tokenizer to be read: a large one takes a few."""

_PATIENCE_SECONDS = 20.0
"""Wall-clock time for an answer. The kernel ends what computes for long; this is for a machine that stands still."""

_TOO_MUCH = "the constraint takes more time or memory than this server gives it"


@dataclass(frozen=True, slots=True)
class State:
    """Where a stream stands in its grammar: `forced` must come next, then one of `allowed`, a bitset over the ids.

    `complete` says that nothing can follow, not even an end token. After an `error` nothing is known.
    """

    forced: tuple[int, ...]
    allowed: np.ndarray
    complete: bool
    error: str | None = None


class Grammar:
    """A constraint's process, which is to compile what is `asked`. Any thread may use it."""

    def __init__(self, connection: Connection, asked: Mapping[str, Any]) -> None:
        self._connection = connection
        self._asked = asked
        self._lock = threading.Lock()
        self._is_compiled = False
        self._error: str | None = None
        self._ids = itertools.count()
        self._open: set[int] = set()
        self._left: deque[int] = deque()
        self._states: dict[int, State] = {}
        self.is_alive = True

    @property
    def is_idle(self) -> bool:
        """Whether no stream follows it, and none is about to."""
        return self._is_compiled and not self._open

    def compile(self) -> str | None:
        """Compile the grammar, or wait for another thread that does; return what is wrong with it."""
        with self._lock:
            if not self._is_compiled:
                reply = self._ask(self._asked) and self._receive()
                self._error = _TOO_MUCH if not reply else json.loads(reply)["error"]
                self._is_compiled = True
            return self._error

    def start(self, allow: bytes | None, room: int) -> int:
        """Begin a stream and return its name. `allow` is a bitset of the only ids that may come in it."""
        with self._lock:
            id_ = next(self._ids)
            self._open.add(id_)
            self._close_left()
            text = None if allow is None else base64.b64encode(allow).decode("ascii")
            self._ask({"start": id_, "allow": text, "room": room})
            return id_

    def accept(self, id_: int, token: int, room: int) -> None:
        """Say which token was sampled; at most `room` may follow."""
        with self._lock:
            self._close_left()
            self._ask({"accept": id_, "token": token, "room": room})

    def state(self, id_: int) -> State:
        """Wait for the state after what was asked last."""
        with self._lock:
            while id_ not in self._states:
                if not self._take_state():
                    return State((), np.zeros(0, np.uint8), complete=False, error=_TOO_MUCH)
            return self._states.pop(id_)

    def leave(self, id_: int) -> None:
        """Forget a stream. The process is told with the next question.

        Takes no lock: the garbage collector calls it, also in a thread that holds the lock.
        """
        self._open.discard(id_)
        self._left.append(id_)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _close_left(self) -> None:
        while self._left:
            id_ = self._left.popleft()
            self._states.pop(id_, None)
            self._ask({"close": id_})

    def _ask(self, message: Mapping[str, Any]) -> bool:
        # The process answers before it reads on: with no room for its answers, it would never make room for this.
        while self.is_alive and not self._has_room():
            self._take_state()
        try:
            if self.is_alive:
                self._connection.send_bytes(json.dumps(message).encode())
        except OSError:
            self._end()
        return self.is_alive

    def _has_room(self) -> bool:
        """Wait until a message can be sent, or a reply be read; return whether it is the first."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN | select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(1000 * _PATIENCE_SECONDS))

    def _take_state(self) -> bool:
        """Wait for a reply and keep it for its stream, unless that has ended; return whether there is one."""
        reply = self._receive()
        if reply is None:
            return False
        head, _, mask = reply.partition(b"\n")
        said = json.loads(head)
        if said["id"] in self._open:
            allowed = np.frombuffer(mask, np.uint8)
            self._states[said["id"]] = State(tuple(said["forced"]), allowed, said["complete"], said["error"])
        return True

    def _receive(self) -> bytes | None:
        try:
            if self.is_alive and self._connection.poll(_PATIENCE_SECONDS):
                return self._connection.recv_bytes()
        except (EOFError, OSError):
            pass
        self._end()
        return None

    def _end(self) -> None:
        self.is_alive = False
        self._connection.close()


class Grammars:
    """The grammars of one engine. Any thread may ask; the process that makes theirs is started by the first."""

    def __init__(self, tokenizer: Any | None, info: EngineInfo) -> None:
        self._tokenizer = tokenizer
        self._info = info
        self._lock = threading.Lock()
        self._grammars: OrderedDict[Constraint, Grammar] = OrderedDict()
        self._worker: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def get(self, constraint: Constraint) -> Grammar:
        """Return the compiled grammar of `constraint`. Raises RequestError where it is none, or cannot be run."""
        with self._lock:
            grammar = self._grammars.get(constraint)
            if grammar is None or not grammar.is_alive:
                self._make_room()
                grammar = self._grammars[constraint] = self._new(constraint)
            self._grammars.move_to_end(constraint)
        # May take seconds, in which other constraints are not held up.
        error = grammar.compile()
        if error is not None:
            self._forget(constraint, grammar)
            raise _unusable(constraint.kind, error)
        return grammar

    def close(self) -> None:
        """End all processes. Idempotent."""
        with self._lock:
            for grammar in self._grammars.values():
                grammar.close()
            self._grammars.clear()
            if self._control is not None and self._worker is not None:
                self._control.close()
                self._worker.wait()
            self._control = self._worker = None

    @property
    def _eos_ids(self) -> list[int]:
        return sorted(token for token in self._info.eos_ids if token < self._info.vocab_size)

    def _make_room(self) -> None:
        for constraint in [one for one, grammar in self._grammars.items() if not grammar.is_alive]:
            del self._grammars[constraint]
        if len(self._grammars) < _MOST_GRAMMARS:
            return
        idle = next((one for one, grammar in self._grammars.items() if grammar.is_idle), None)
        if idle is None:
            raise RequestError(f"{_MOST_GRAMMARS} different constraints are in use already", fix="try again later")
        self._grammars.pop(idle).close()

    def _new(self, constraint: Constraint) -> Grammar:
        asked = {**asdict(constraint), "eos_ids": self._eos_ids, "vocab_size": self._info.vocab_size}
        return Grammar(self._new_process(), asked)

    def _forget(self, constraint: Constraint, grammar: Grammar) -> None:
        with self._lock:
            if self._grammars.get(constraint) is grammar:
                del self._grammars[constraint]
        grammar.close()

    def _new_process(self) -> Connection:
        control = self._control
        if control is None or self._worker is None or self._worker.poll() is not None:
            control = self._start_worker()
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(control, [b"."], [theirs.fileno()])
        return Connection(ours.detach())

    def _start_worker(self) -> socket.socket:
        """Start what makes the processes. Raises RequestError where the tokenizer, or a package, does not serve."""
        greeting = {"tokenizer": tokenizer_json(self._tokenizer), "eos_ids": self._eos_ids}
        ours, theirs = socket.socketpair()
        script = Path(__file__).with_name("grammar_worker.py")
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        with theirs:
            # A session of its own, so that Ctrl-C reaches it through the server only.
            self._worker = subprocess.Popen(
                [sys.executable, "-P", str(script)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        error = _greet(ours, greeting)
        if error is not None:
            ours.close()
            self._worker.kill()
            self._worker.wait()
            raise RequestError(f"this server cannot run constraints: {error}", fix="use a mask")
        self._control = ours
        return ours


def _unusable(kind: str, error: str) -> RequestError:
    # llguidance ends with a listing of the grammar, which is the client's own text in Lark alone.
    reason = error if kind == "lark" else re.split(r"\n +1 \| start:", error)[0]
    fix = "make it simpler" if error == _TOO_MUCH else "write it otherwise"
    return RequestError(f"constraint.{kind} cannot be used: {reason}", fix=fix)


def _greet(worker: socket.socket, greeting: Mapping[str, Any]) -> str | None:
    """Send a new worker what it needs first; return what is wrong with it."""
    with Connection(os.dup(worker.fileno())) as hello:
        try:
            hello.send_bytes(json.dumps(greeting).encode())
            if not hello.poll(_START_SECONDS):
                return "it does not answer"
            error: str | None = json.loads(hello.recv_bytes())["error"]
            return error
        except (EOFError, OSError):
            return "llguidance did not start"


def tokenizer_json(tokenizer: Any | None) -> str:
    """Return a `tokenizers` tokenizer as JSON, without cutting and padding. Raises RequestError where there is none."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        missing = "came without a tokenizer" if tokenizer is None else "has no tokenizer.json"
        raise RequestError(f"this model {missing}, so it takes no constraint", fix="use a mask of token ids")
    plain = Tokenizer.from_str(backend.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain.to_str()
