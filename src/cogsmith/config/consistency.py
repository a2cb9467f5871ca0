"""What the keys of one model must say together, `[defaults]` included.

Each check reads the merged values as they are, wrong types among them, and keeps to what it can judge: what is
wrong with a single key is said elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cogsmith import quant
from cogsmith.config import arguments, engines, exporting, images, prompting, tasks, weights
from cogsmith.config.document import Section
from cogsmith.config.findings import Finding
from cogsmith.config.model import CogSettings


def check(section: Section, root: Path) -> Iterator[Finding]:
    """Yield what is contradictory or missing in one model. Local paths are relative to `root`."""
    yield from weights.check(section, root)
    yield from arguments.check(section)
    yield from _quantisation(section)
    yield from engines.check(section)
    yield from images.check(section)
    yield from prompting.check(section, root)
    yield from tasks.check(section)
    yield from exporting.check(section, root)
    yield from _python(section)
    yield from _limits(section)


def _quantisation(section: Section) -> Iterator[Finding]:
    own, given = _table(section, "quant"), _table(section, "config")
    faults = quant.upstream_faults(given)
    faults += quant.contradictions(own, {key: f"quant.{key}" for key in own})
    ways = [*(["quant"] if own else []), *[f"config.{key}" for key in quant.UPSTREAM if given.get(key)][:1]]
    ways += ["config.quantization_config"] if given.get("quantization_config") else []
    if len(ways) > 1:
        faults.append(quant.Fault(ways[-1], f"{ways[0]} and {ways[-1]} both say how to quantise", "keep one of them"))
    if own.get("require_cuda") is True and section.get("cog", "gpu") is False:
        message = "quant.require_cuda is true, and cog.gpu = false gives the container no GPU"
        faults.append(quant.Fault("quant.require_cuda", message, "change one of the two"))
    for fault in faults:
        yield Finding(section.origin(*fault.key.split(".", 1)), fault.message, fault.fix)


def _table(section: Section, key: str) -> Mapping[str, Any]:
    table = section.get(key)
    return table if isinstance(table, dict) else {}


def _python(section: Section) -> Iterator[Finding]:
    concurrency = section.get("cog", "concurrency")
    at_once = CogSettings().concurrency if concurrency is None else concurrency
    if section.get("cog", "python") == "3.10" and _is_count(at_once) and at_once > 1:
        yield Finding(
            section.origin("cog", "python"),
            f"Python 3.10 runs one prediction at a time, and cog.concurrency is {at_once}",
            'set cog.python = "3.11" or newer, or cog.concurrency = 1',
        )


def _limits(section: Section) -> Iterator[Finding]:
    context, tokens = section.get("limits", "max_context"), section.get("limits", "max_tokens")
    if _is_count(context) and _is_count(tokens) and tokens > context:
        yield Finding(
            section.origin("limits", "max_tokens"),
            f"max_tokens ({tokens}) is more than max_context ({context}) can hold",
            f"set limits.max_tokens to {context} or less",
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
