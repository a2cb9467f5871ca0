"""Options that take several values at once: `--prompts "a" "b"` means `--prompts "a" --prompts "b"`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from typer.core import TyperCommand


class ManyValuesCommand(TyperCommand):
    """A command whose list options take every value up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line. Raises typer's usage errors."""
        options = {
            name for parameter in self.params if getattr(parameter, "multiple", False) for name in parameter.opts
        }
        return super().parse_args(ctx, list(spread(args, options)))


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
