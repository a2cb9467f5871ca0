"""The process that runs grammars, for `engine.grammars`. A script of its own: it imports no more than llguidance.

A grammar is a client's, and llguidance's limits do not hold everywhere: a chain of rules overflows the stack, `a{n}`
forces n bytes at once, optional parts take memory in the square of their number. So each grammar has a process, which
the kernel ends where it takes too much, and with it that grammar's streams alone. This one makes them: it reads the
tokenizer once, then forks for each socket that it is sent. Whatever ends the server closes the sockets and ends all.

On a grammar's socket, requests and replies are messages of JSON; a reply's mask follows its JSON after a newline:

    {"kind", "text", "choices", "eos_ids", "vocab_size"}    compile; answered by {"error"}, null where it can be used
    {"start": id, "allow", "room"}     a stream begins; `allow` as base64, or null
    {"accept": id, "token", "room"}    its next token was sampled; at most `room` may follow
    {"close": id}                      it has ended; not answered

`start` and `accept` are answered by {"id", "forced", "complete", "error"} and the bitset of what may follow then.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import llguidance
import numpy as np

COMPILE_SECONDS = 5.0
"""Processor time that a grammar may take to be compiled."""

STEP_SECONDS = 0.25
"""Processor time that a stream's step may take: no other stream waits for longer."""

STEADY_SECONDS = 0.01
"""Processor time that steps may take each, in the long run."""

MEMORY_BYTES = 128 * 2**20
"""Memory that a grammar may take, beyond the tokenizer's."""

_HEAD_START_SECONDS = 1.0
_LIMITS = llguidance.LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
_NO_FORCING = '%llguidance {"no_forcing": true}\n'


@dataclass
class Branch:
    """A stream's place in its grammar. `tokens` have been accepted; not `forcing` where `allow` excludes one forced."""

    matcher: Any
    allow: np.ndarray | None
    tokens: list[int] = field(default_factory=list)
    forcing: bool = True


class Grammar:
    """A compiled grammar and the streams that follow it."""

    def __init__(self, tokenizer: Any, text: str, eos_ids: list[int], vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._text = text
        self._eos_ids = frozenset(eos_ids)
        self._vocab_size = vocab_size
        self._matcher = self._compile(text)
        self._free: Any = None
        self._branches: dict[int, Branch] = {}

    @property
    def error(self) -> str | None:
        """What is wrong with the grammar, in llguidance's words; None where it can be used."""
        return self._matcher.get_error() or None

    def start(self, id_: int, allow: str | None, room: int) -> tuple[dict[str, Any], bytes]:
        """Begin a stream."""
        mask = None if allow is None else self._bits(base64.b64decode(allow))
        branch = self._branches[id_] = Branch(self._matcher.deep_copy(), mask)
        return self._advance(id_, branch, room)

    def accept(self, id_: int, token: int, room: int) -> tuple[dict[str, Any], bytes]:
        """Take the stream's next token."""
        branch = self._branches[id_]
        self._consume(branch, [token])
        return self._advance(id_, branch, room)

    def close(self, id_: int) -> None:
        """Forget a stream."""
        self._branches.pop(id_, None)

    def _advance(self, id_: int, branch: Branch, room: int) -> tuple[dict[str, Any], bytes]:
        """Take what is forced; return it, and what may follow."""
        forced: list[int] = []
        while len(forced) < room and (tokens := self._forced(branch)):
            forced += tokens
            if not self._eos_ids.isdisjoint(tokens):
                break
            self._consume(branch, tokens)
        mask = self._mask(branch)
        error = branch.matcher.get_error() or None
        complete = error is None and branch.matcher.is_stopped() and not mask.any()
        reply = {"id": id_, "forced": forced[:room], "complete": complete, "error": error}
        return reply, np.packbits(mask, bitorder="little").tobytes()

    def _forced(self, branch: Branch) -> list[int]:
        """The tokens that must come next, up to one that may not: from there on, others may spell the same."""
        if branch.matcher.is_stopped():
            ends = np.flatnonzero(self._mask(branch)).tolist()
            return ends if len(ends) == 1 and not branch.matcher.get_error() else []
        if not branch.forcing:
            return []
        tokens = branch.matcher.compute_ff_tokens()
        # Special tokens that a text happens to name are forced by llguidance, and then not accepted.
        count = branch.matcher.validate_tokens(tokens) if tokens else 0
        count = next((i for i, token in enumerate(tokens[:count]) if not self._may_come(branch, token)), count)
        if count < len(tokens):
            self._stop_forcing(branch)
        return list(tokens[:count])

    def _may_come(self, branch: Branch, token: int) -> bool:
        if token >= self._vocab_size or token in self._eos_ids:
            return False
        return branch.allow is None or bool(branch.allow[token])

    def _stop_forcing(self, branch: Branch) -> None:
        """Go on with a matcher that knows no forced tokens, so that its masks hold all spellings."""
        if self._free is None:
            self._free = self._compile(_NO_FORCING + self._text)
        branch.matcher = self._free.deep_copy()
        branch.matcher.consume_tokens(branch.tokens)
        branch.forcing = False

    def _consume(self, branch: Branch, tokens: list[int]) -> None:
        branch.matcher.consume_tokens(tokens)
        branch.tokens += tokens

    def _mask(self, branch: Branch) -> np.ndarray:
        """What may follow, bool `[vocab_size]`; nothing after an error."""
        if branch.matcher.is_error():
            return np.zeros(self._vocab_size, bool)
        mask = self._bits(branch.matcher.compute_bitmask())
        # An end token may also be text to the grammar, and would end the stream in its middle. Where the model knows
        # none, llguidance has one of its own all the same.
        if not (self._eos_ids and branch.matcher.is_accepting()):
            ends = self._eos_ids or self._tokenizer.eos_tokens
            mask[[token for token in ends if token < self._vocab_size]] = False
        return mask if branch.allow is None else mask & branch.allow

    def _bits(self, bitset: bytes) -> np.ndarray:
        bits = np.unpackbits(np.frombuffer(bitset, np.uint8), bitorder="little")[: self._vocab_size]
        return np.pad(bits, (0, self._vocab_size - len(bits))).astype(bool)

    def _compile(self, text: str) -> Any:
        grammar = json.dumps({"grammars": [{"lark_grammar": text}]})
        return llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)


def serve(connection: Connection, tokenizer: Any) -> None:
    """Run one grammar until its socket is closed."""
    asked = json.loads(connection.recv_bytes())
    with at_most(COMPILE_SECONDS):
        text = lark(asked["kind"], asked["text"], asked["choices"])
        grammar = Grammar(tokenizer, text, asked["eos_ids"], asked["vocab_size"])
    connection.send_bytes(json.dumps({"error": grammar.error}).encode())
    earned = time.process_time() + _HEAD_START_SECONDS
    while grammar.error is None:
        asked = json.loads(connection.recv_bytes())
        if "close" in asked:
            grammar.close(asked["close"])
            continue
        with at_most(STEP_SECONDS):
            if "start" in asked:
                reply, mask = grammar.start(asked["start"], asked["allow"], asked["room"])
            else:
                reply, mask = grammar.accept(asked["accept"], asked["token"], asked["room"])
        earned += STEADY_SECONDS * (1 + len(reply["forced"]))
        if time.process_time() > earned:
            return
        connection.send_bytes(json.dumps(reply).encode() + b"\n" + mask)


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Have the kernel end this process where the block takes more processor time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)


def lark(kind: str, text: str, choices: list[str]) -> str:
    """Return a constraint as a grammar in llguidance's Lark dialect."""
    match kind:
        case "choice":
            return f"start: CHOICE\nCHOICE: {' | '.join(json.dumps(choice, ensure_ascii=False) for choice in choices)}"
        case "regex":
            return f"start: REGEX\nREGEX: /{llguidance.regex_to_lark(text, use_ascii='')}/"
        case "json_schema":
            return f"start: %json {text}"
    return text


def limit_memory() -> None:
    """Give this process no more memory than it has and a grammar may take, and have it go first where all is gone."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def main() -> None:
    """Read the tokenizer, say what became of it, and make a process for each socket that comes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control = socket.socket(fileno=0)
    hello = Connection(os.dup(0))
    asked = json.loads(hello.recv_bytes())
    try:
        tokenizer = llguidance.LLTokenizer(asked["tokenizer"], eos_token=asked["eos_ids"] or None)
    except (ValueError, TypeError) as error:
        hello.send_bytes(json.dumps({"error": str(error)}).encode())
        return
    hello.send_bytes(json.dumps({"error": None}).encode())
    hello.close()
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return
        if os.fork() == 0:
            try:
                control.close()
                limit_memory()
                serve(Connection(descriptors[0]), tokenizer)
            finally:
                os._exit(0)
        os.close(descriptors[0])


if __name__ == "__main__":
    main()
