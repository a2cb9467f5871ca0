"""`cogsmith build`: config.toml to work directories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.measure import Measurement
from rich.table import Table

from cogsmith import config
from cogsmith.cli import module_tree
from cogsmith.cli.console import ConsoleReporter, format_bytes, out
from cogsmith.cli.demo import run_demo
from cogsmith.cli.extras import with_extras
from cogsmith.cli.folders import shown
from cogsmith.export import at_build
from cogsmith.export.onnx import Exported
from cogsmith.workdir.build import Built, build, preview, select
from cogsmith.workdir.plan import Plan

# Wider than any table.
_UNBOUNDED = 10_000


def command(
    names: Annotated[list[str] | None, typer.Argument(help="Models to build; all, if none is named.")] = None,
    config_file: Annotated[Path, typer.Option("--config", help="The config file.")] = Path("config.toml"),
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be done, and do nothing.")] = False,
    frozen: Annotated[bool, typer.Option("--frozen", help="Refuse to differ from cogsmith.lock.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan or the result as JSON.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Build the example's first model and talk to it.")] = False,
) -> None:
    """Render a work directory per model, ready to push."""
    if demo and (names or plan or frozen or as_json):
        raise typer.BadParameter("--demo builds the example's first model, and takes no names and no other option")
    if plan and frozen:
        raise typer.BadParameter("--plan builds nothing, so there is nothing for --frozen to refuse; give one of them")
    if demo:
        run_demo()
        return
    project = config.load(config_file)
    chosen = names or []
    if plan:
        _print_plans(with_extras(lambda: preview(project, chosen)), as_json=as_json)
        return
    models = select(project, chosen)
    with_extras(lambda: at_build.require_possible(models))
    built = with_extras(lambda: build(project, chosen, frozen=frozen, reporter=ConsoleReporter()))
    for item in built:
        if item.plan.state != "unchanged":
            module_tree.write(item.folder)
    made = [at_build.make(item.plan.model, item.folder, ConsoleReporter()) for item in built]
    _print_built(built, made, as_json=as_json)


def _print_plans(plans: Sequence[Plan], *, as_json: bool) -> None:
    if as_json:
        out.print_json(json.dumps([_plan_facts(plan) for plan in plans]))
        return
    columns = ("model", "state", "to fetch", "in the image", "parameters", "weights", "GPU memory")
    table = Table(*columns, box=None, pad_edge=False)
    for plan in plans:
        table.add_row(
            plan.model.name,
            plan.state,
            format_bytes(plan.bytes_to_fetch),
            ("" if plan.resolved.exact else "~") + format_bytes(plan.image_bytes),
            _millions(plan.resolved.parameters),
            _weights(plan),
            _memory(plan),
        )
    # As wide as it is, like every other line: in a pipe, rich would squeeze it into 80 columns and cut the names.
    table.width = Measurement.get(out, out.options.update_width(_UNBOUNDED), table).maximum
    out.print(table)
    for plan in plans:
        for change in plan.changes:
            out.print(f"{plan.model.name}: {change}", markup=False)
        for file in plan.entry.code:
            size = format_bytes(file.size)
            out.print(f"{plan.model.name}: runs {file.path}, {size}, sha256 {file.sha256}", markup=False)


def _plan_facts(plan: Plan) -> dict[str, object]:
    return {
        "model": plan.model.name,
        "state": plan.state,
        "source": plan.resolved.uri,
        "further_sources": list(plan.resolved.further_uris),
        "revision": plan.resolved.revision,
        "format": plan.resolved.format,
        "bytes_to_fetch": plan.bytes_to_fetch,
        "image_bytes": plan.image_bytes,
        "parameters": plan.resolved.parameters,
        "quantization": None if plan.model.quant is None else str(plan.model.quant),
        "unquantized_weights_bytes": plan.memory.unquantised,
        "weights_bytes": plan.memory.weights,
        "gpu_memory_bytes": plan.memory.total,
        "code": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in plan.entry.code],
        "changes": list(plan.changes),
    }


def _print_built(built: Sequence[Built], made: Sequence[Exported | None], *, as_json: bool) -> None:
    if as_json:
        exports = [{"onnx": asdict(exported)} if exported else {} for exported in made]
        facts = [{"folder": str(item.folder), **_plan_facts(item.plan)} for item in built]
        out.print_json(json.dumps([fact | onnx for fact, onnx in zip(facts, exports, strict=True)]))
        return
    for item, exported in zip(built, made, strict=True):
        out.print(f"{shown(item.folder)}  {_done(item)}", markup=False)
        if item.delivered:
            out.print(f"{item.delivered.place}  put there too", markup=False)
        if exported:
            out.print(f"{exported.place}  {exported.summary()}", markup=False)


def _done(item: Built) -> str:
    if item.plan.state == "unchanged":
        return "unchanged"
    ways = ", ".join(f"{count} by {way}" for way, count in item.placed.items())
    return f"built, {format_bytes(item.plan.image_bytes)}" + (f" (weight files: {ways})" if ways else "")


def _weights(plan: Plan) -> str:
    before, after = format_bytes(plan.memory.unquantised), format_bytes(plan.memory.weights)
    return after if plan.model.quant is None else f"{before} -> {after} ({plan.model.quant})"


def _memory(plan: Plan) -> str:
    # What a row's keys and values take is known once the model's config.json is here.
    return format_bytes(plan.memory.total) + ("" if plan.memory.cache is not None else " + KV cache")


def _millions(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e6:,.1f} M"
