"""The items of a batch, one by one: an operation of either version, a definition, or what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
from msgspec import Raw

from cogsmith.errors import ProtocolError
from cogsmith.lmtp.embedding import contradictions
from cogsmith.lmtp.extended import End
from cogsmith.lmtp.handles import Define, Handles
from cogsmith.lmtp.limits import BatchLimits, excesses, num_branches
from cogsmith.lmtp.messages import Message, MessageError, ModelInfo, StreamId, TokenError
from cogsmith.lmtp.payload import UNREADABLE, parse_payload, shown
from cogsmith.lmtp.versions import V1_0, V1_1, AnyOperation, Version, parse_operation, version_of

# Clients of 1.0 send it out of habit; it is ignored without a warning.
_WITHOUT_MEANING = "length_penalty"

_pair = msgspec.json.Decoder(tuple[str, Raw])


class Failure(msgspec.Struct, frozen=True):
    """An operation that cannot be carried out. `stream_id` is None where its answer belongs to no stream."""

    verb: str | None
    stream_id: int | None
    message: str
    extended: bool = False
    """Whether it is of 1.1, and answered in its words."""

    @property
    def reply(self) -> TokenError | MessageError | End:
        """The error item for the client: on the operation's own stream, where it has one."""
        if self.stream_id is None or self.verb == ModelInfo.verb:
            return MessageError(stream_id=self.stream_id, error=self.message)
        if self.extended:
            return End(stream_id=self.stream_id, finish_reason="error", error=self.message)
        return TokenError(stream_id=self.stream_id, error=self.message)


class _Addressed(Message, frozen=True, kw_only=True):
    """What an operation of any verb has."""

    stream_id: StreamId


class OperationReader:
    """Reads a batch's items in their order, which counts: things are defined before they are named, the first
    operation of a stream owns it, and branches add up to a limit.

    `items` are the operations and failures so far, `warnings` tell what was ignored in them.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self.items: list[AnyOperation | Failure] = []
        self.warnings: list[str] = []
        self._limits = limits
        self._handles = Handles(limits.max_all_prompt_ids)
        self._owners: dict[int, int] = {}
        self._num_branches = 0

    def read(self, position: int, raw: Raw) -> None:
        """Read the item at `position` (1-based), JSON of any kind."""
        item = self._parse(position, raw)
        if item is None:
            return
        if item.stream_id is not None:
            owner = self._owners.setdefault(item.stream_id, position)
            if owner != position:
                item = _second_of_a_stream(position, item, owner)
        self.items.append(item)

    def _parse(self, position: int, raw: Raw) -> AnyOperation | Failure | None:
        """Return the item; None for a definition, which is kept."""
        try:
            verb, payload = _pair.decode(raw)
        except UNREADABLE:
            return Failure(None, None, f"operation {position} is {shown(raw)} (give [VERB, payload])")
        try:
            version = version_of(payload)
        except ProtocolError as error:
            return Failure(verb, _stream_id(payload), f"operation {position}: {error.message} ({error.fix})")
        if verb == Define.verb and version is V1_1:
            return self._define(position, payload)
        kind = version.operations.get(verb)
        if kind is None:
            message = f"operation {position}: {unknown_verb(verb, version)}"
            return Failure(None, _stream_id(payload), message, version is V1_1)
        return self._operation(position, version, kind, payload)

    def _operation(
        self, position: int, version: Version, kind: type[AnyOperation], payload: Raw
    ) -> AnyOperation | Failure:
        parsed = parse_operation(version, kind, payload, self._handles.readers if version is V1_1 else {})
        if names := [name for name in parsed.unknown if name != _WITHOUT_MEANING]:
            listed = shown(json.dumps(names).encode())
            self.warnings.append(
                f"operation {position} ({kind.verb}): ignored fields that LMTP 1.0 does not have: {listed}"
            )
        message = parsed.message
        faults = list(parsed.faults if message is None else (*contradictions(message), *self._excesses(message)))
        if message is None or faults:
            told = f"operation {position} ({kind.verb}): {'; '.join(faults)}"
            return Failure(kind.verb, parsed.stream_id, told, version is V1_1)
        return message

    def _define(self, position: int, payload: Raw) -> Failure | None:
        parsed = parse_operation(V1_1, Define, payload)
        faults = parsed.faults
        if parsed.message is not None:
            try:
                self._handles.define(parsed.message)
            except ProtocolError as error:
                faults = (f"{error.message} ({error.fix})",)
        return Failure(None, None, f"operation {position} (DEFINE): {'; '.join(faults)}") if faults else None

    def _excesses(self, operation: AnyOperation) -> Iterator[str]:
        """Yield what is more than the limits allow, in this operation or in all of the batch up to it."""
        yield from excesses(operation, self._limits)
        total = self._num_branches + num_branches(operation)
        if total > self._limits.max_branches:
            yield (
                f"with it the batch has {total} branches, more than {self._limits.max_branches}"
                " (send it as several batches)"
            )
        else:
            self._num_branches = total


def unknown_verb(verb: str, version: Version) -> str:
    """Say that an operation's verb is none of `version`, and what to send instead."""
    if verb in (*V1_1.operations, Define.verb) and version is V1_0:
        return f'{shown(verb)} is a verb of LMTP 1.1 only (add "lmtp": "1.1")'
    return f"unknown verb {shown(verb)} (give one of {', '.join(version.operations)})"


def _stream_id(payload: Raw) -> int | None:
    return parse_payload(_Addressed, payload).stream_id


def _second_of_a_stream(position: int, item: AnyOperation | Failure, owner: int) -> Failure:
    """Return the failure of an operation whose `stream_id` is the `owner`'s already: see `batch`'s text."""
    return Failure(
        item.verb,
        None,
        f"operation {position}: stream_id is {item.stream_id}, as in operation {owner}"
        " (give each operation of a batch its own)",
    )
