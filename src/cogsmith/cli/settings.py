"""Settings of a generation of which several may be given: one run for each combination."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from cogsmith.client.options import GenerateOptions


def product(
    fixed: GenerateOptions, several: Mapping[str, Sequence[Any] | None]
) -> tuple[list[GenerateOptions], tuple[str, ...]]:
    """Return the options of each run, the last of `several` changing fastest, and the names of those that change.

    What is None is left out. Raises typer's usage error for a value that is given twice.
    """
    given = {name: values for name, values in several.items() if values is not None}
    for name, values in given.items():
        if len(set(values)) < len(values):
            raise typer.BadParameter(f"--{name.replace('_', '-')} has a value twice: {', '.join(map(str, values))}")
    combined = itertools.product(*given.values())
    runs: list[GenerateOptions] = [{**dict(zip(given, values, strict=True)), **fixed} for values in combined]  # type: ignore[typeddict-item]
    return runs, tuple(name for name, values in given.items() if len(values) > 1)


def label(options: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return what tells one run from another: `temperature=0.5, seed=1`; empty where there is only one."""
    return ", ".join(f"{name}={options[name]}" for name in names)
