"""What the server said of itself, and so what it may be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cogsmith.errors import UnsupportedByServer
from cogsmith.lmtp import DEFAULT_LIMITS, BatchLimits
from cogsmith.lmtp.extended import VERSION

_LIMITS = {"max_operations": "max_operations", "max_branches": "max_branches", "max_batch_bytes": "max_bytes"}


@dataclass(frozen=True, slots=True)
class Server:
    """The answer to MODEL_INFO: `facts` as they came. A server that says nothing speaks LMTP 1.0."""

    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_extended(self) -> bool:
        """Whether it speaks LMTP 1.1."""
        return self.facts.get("lmtp") == VERSION

    @property
    def fingerprint(self) -> str | None:
        """Hash of its vocabulary, as `detokenize.fingerprint` makes it; None where it does not say."""
        return self._text("tokenizer")

    @property
    def tokenizer_digest(self) -> str | None:
        """Hash of what it answers to TOKENIZER; None where it does not say."""
        return self._text("tokenizer_files")

    @property
    def vocab_size(self) -> int | None:
        """How many ids its tokenizer knows; None where it does not say."""
        size = self.facts.get("vocab_size")
        return size if isinstance(size, int) else None

    @property
    def eos_ids(self) -> frozenset[int] | None:
        """The ids that end a text; None where it does not say."""
        ids = self.facts.get("eos_ids")
        return frozenset(ids) if isinstance(ids, list) else None

    @property
    def limits(self) -> BatchLimits:
        """How much it takes in one batch; what it does not say is as our own server has it."""
        said = self.facts.get("limits")
        known = {field: said.get(key) for key, field in _LIMITS.items()} if isinstance(said, Mapping) else {}
        numbers = {field: number for field, number in known.items() if isinstance(number, int) and number > 0}
        return msgspec.structs.replace(DEFAULT_LIMITS, **numbers)

    def can(self, feature: str) -> bool:
        """Whether it has a feature of LMTP 1.1."""
        return self.is_extended and feature in self.facts.get("features", ())

    def require(self, features: list[str]) -> None:
        """Raises UnsupportedByServer, naming all of `features` that it lacks."""
        if missing := [feature for feature in features if not self.can(feature)]:
            raise UnsupportedByServer(
                f"the server speaks LMTP {self._text('lmtp') or '1.0'} and has no {', '.join(missing)}",
                fix="leave it out" if len(missing) == 1 else "leave them out",
            )

    def _text(self, key: str) -> str | None:
        value = self.facts.get(key)
        return value if isinstance(value, str) else None
