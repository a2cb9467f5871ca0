"""Options of MosaicML's `hf_generate.py` that load a model: for one in this process, and not for a server's.

What `from_pretrained` takes goes there, as with `serve`; what has another name or another place here says which.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import typer

from cogsmith.cli import model_args

_RENAMED = {"model_dtype": "dtype", "attn_impl": "attn_implementation"}

_ELSEWHERE = {
    "autocast": "name the type to compute in, for a model in this process: --autocast_dtype bf16",
    "no_repeat_ngram_size": "use --repetition-penalty or --frequency-penalty",
    "name_or_path": "name the model first: cogsmith generate NAME",
}


def read(words: Sequence[str], known: Collection[str], *, is_local: bool) -> dict[str, Any]:
    """Return arguments for `from_pretrained`. Raises typer's usage error for whatever is wrong, all of it."""
    problems = [f"{word} has no place here: {_ELSEWHERE[key]}" for word in words if (key := _key(word)) in _ELSEWHERE]
    names, arguments, faults = ([], {}, []) if problems else model_args.split(words, known)
    problems += faults
    problems += [f"{name!r} belongs to no option" for name in names]
    if arguments and not is_local and not problems:
        listed = ", ".join(f"--{key}" for key in arguments)
        problems.append(f"{listed}: the server has loaded its model; say config.KEY in config.toml, and build it again")
    if problems:
        raise typer.BadParameter("\n  ".join(problems))
    return {_RENAMED.get(key, key): value for key, value in arguments.items()}


def _key(word: str) -> str:
    if not word.startswith("-"):
        return ""
    key = word.lstrip("-").partition("=")[0].replace("-", "_")
    return {"n": "name_or_path"}.get(key, key.removeprefix("no_") if key == "no_autocast" else key)
