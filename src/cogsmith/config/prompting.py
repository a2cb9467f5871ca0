"""`prompt.*`: which template is packaged with a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jinja2

from cogsmith.config.document import Section
from cogsmith.config.findings import Finding, show
from cogsmith.config.tables import RawPrompt
from cogsmith.errors import RequestError
from cogsmith.manifest import Prompt
from cogsmith.prompts import chat, templates

_SUFFIX = ".jinja"


def check(section: Section, root: Path) -> Iterator[Finding]:
    """Yield what is wrong with the template of one model. A file is relative to `root`."""
    named = section.get("prompt", "template")
    if not isinstance(named, str) or not named.strip():
        return
    try:
        _read(named, root)
    except RequestError as error:
        yield Finding(section.origin("prompt", "template"), error.message, error.fix or "name another template")


def complete(raw: RawPrompt, root: Path, *, cuts: bool) -> Prompt:
    """Return what the manifest says of prompts; `cuts` is what `truncate` is where it is left out."""
    return Prompt(
        template=raw.template,
        text=_read(raw.template, root) if raw.template else None,
        system=raw.system,
        stop=None if raw.stop is None else tuple(raw.stop),
        truncate=cuts if raw.truncate is None else raw.truncate,
    )


def _read(named: str, root: Path) -> str | None:
    """Return the text of a template of the user's own; None for a known one. Raises RequestError for neither."""
    if not named.endswith(_SUFFIX):
        templates.find(named)
        return None
    path = root / Path(named).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
        chat.stop_texts(text)
    except OSError as error:
        raise RequestError(f"{show(named)} cannot be read: {error.strerror}", fix="check the path") from None
    except UnicodeDecodeError:
        raise RequestError(f"{show(named)} is no UTF-8 text", fix="save it as UTF-8") from None
    except jinja2.TemplateSyntaxError as error:
        raise RequestError(f"line {error.lineno} of {show(named)}: {error.message}", fix="mend the template") from None
    return text
