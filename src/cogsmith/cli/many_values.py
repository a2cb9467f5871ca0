"""Options that take several values at once: `--prompts "a" "b"` means `--prompts "a" --prompts "b"`.

And flags that say yes or no by a word, as those of other programs do: `--do_sample False` means `--no-do_sample`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from typer.core import TyperCommand


class ManyValuesCommand(TyperCommand):
    """A command whose list options take every value up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line. Raises typer's usage errors."""
        options = {
            name for parameter in self.params if getattr(parameter, "multiple", False) for name in parameter.opts
        }
        flags = {
            name: {"true": name, "false": parameter.secondary_opts[0]}
            for parameter in self.params
            if parameter.secondary_opts
            for name in parameter.opts
        }
        return super().parse_args(ctx, list(spread(list(decided(args, flags)), options)))


def decided(arguments: Sequence[str], flags: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield `arguments` with each of `flags` that a word follows in that word's form."""
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, has_value, value = argument.partition("=")
        words = flags.get(name, {})
        following = value if has_value else rest[0] if rest else ""
        if following.lower() not in words:
            yield argument
            continue
        yield words[following.lower()]
        if not has_value:
            rest.pop(0)


def spread(arguments: Sequence[str], options: Collection[str]) -> Iterator[str]:
    """Yield `arguments` with the name of each of `options` repeated before each of its further values."""
    option, wants_value = None, False
    for argument in arguments:
        if wants_value:
            wants_value = False  # a first value may look like an option, as everywhere
        elif argument.startswith("-") and argument != "-":
            name, has_value, _ = argument.partition("=")
            option = name if name in options else None
            wants_value = option is not None and not has_value
        elif option is not None:
            yield option
        yield argument
