"""`cogsmith import`: a checkpoint in any format to a Hugging Face folder, without a config.toml."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cogsmith import sources
from cogsmith.cli.console import ConsoleReporter, format_bytes, out
from cogsmith.cli.extras import with_extras
from cogsmith.config import uri
from cogsmith.config.findings import Refusal
from cogsmith.config.model import CodeSettings, Format, Model, Precision
from cogsmith.errors import UserError
from cogsmith.sources.custom_code import write_auto_map
from cogsmith.workdir import output

_NAME = "import"


def command(
    src: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC",
            help="What to read: a path, hf:ORG/REPO, s3://BUCKET/PATH (gs, az, oci, https), pypi:NAME==VERSION. "
            "Several for LLaMA2-Accessory: the base, then what is laid over it.",
        ),
    ],
    dst: Annotated[str, typer.Argument(metavar="DST", help="The folder to write, or an address in an object store.")],
    format_: Annotated[Format, typer.Option("--format", help="What SRC holds; auto finds out by names.")] = "auto",
    output_precision: Annotated[
        Precision | None, typer.Option("--output-precision", help="The type of the numbers that are written.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="A tokenizer's folder or file: a path or URI.")
    ] = None,
    llama_type: Annotated[str | None, typer.Option("--llama-type", help="LLaMA2-Accessory: the kind of model.")] = None,
    llama_config: Annotated[
        list[Path] | None, typer.Option("--llama-config", help="LLaMA2-Accessory: a JSON file; a later one wins.")
    ] = None,
    max_seq_len: Annotated[
        int | None, typer.Option("--max-seq-len", min=1, help="LLaMA2-Accessory: the longest text, in tokens.")
    ] = None,
    allow_patterns: Annotated[
        list[str] | None, typer.Option("--allow-pattern", help="Look only at files of SRC that match, as *.json.")
    ] = None,
    source_cache: Annotated[
        Path | None, typer.Option("--source-cache", help="Where downloads are kept; the cache, if left out.")
    ] = None,
    as_bin: Annotated[
        bool, typer.Option("--bin", help="Write pytorch_model.bin, a pickle, in place of safetensors.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at DST.")] = False,
    code_path: Annotated[
        Path | None, typer.Option("--code-path", help="The model's own Python files: one, or their folder.")
    ] = None,
    code_model_type: Annotated[
        str | None, typer.Option("--code-model-type", help="Their model_type, as in config.json.")
    ] = None,
    code_config: Annotated[str | None, typer.Option("--code-config", help="Their configuration: MODULE.CLASS.")] = None,
    code_model: Annotated[str | None, typer.Option("--code-model", help="Their model: MODULE.CLASS.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Turn a checkpoint in any format into a Hugging Face folder.

    With --code-path and its companions, the folder also gets the model's own code, and loads with
    trust_remote_code=True only. No code in a checkpoint is run.
    """
    places = [_parsed(uri.parse, text) for text in src]
    target = str(_parsed(uri.parse_output, dst))
    _require_apart(target, places)
    model = Model(
        name=_NAME,
        source=str(places[0]),
        revision=places[0].revision,
        further_sources=tuple(place.pinned for place in places[1:]),
        format=format_,
        output_precision=output_precision,
        tokenizer=_parsed(uri.parse, tokenizer).pinned if tokenizer else None,
        llama_type=llama_type,
        llama_config=tuple(_absolute(path) for path in llama_config or ()),
        model_args={"max_seq_len": max_seq_len} if max_seq_len else {},
        allow_patterns=tuple(allow_patterns or ()),
        source_cache=_absolute(source_cache) if source_cache else None,
        code=_code(code_path, code_model_type, code_config, code_model),
    )
    with_extras(lambda: _import(model, target, as_bin=as_bin, force=force, as_json=as_json))


def _import(model: Model, target: str, *, as_bin: bool, force: bool, as_json: bool) -> None:
    output.require_free(target, force=force)
    reporter = ConsoleReporter()
    source = sources.open_source(model)
    resolved = source.resolve()
    code = sources.read_code(model, resolved)
    checkpoint = source.materialise(resolved, reporter)
    saved = output.save(
        {file.path: file.origin for file in checkpoint.files},
        target,
        weights="bin" if as_bin else "safetensors",
        force=force,
        reporter=reporter,
        finish=(lambda folder: write_auto_map(folder, code)) if code else None,
    )
    if as_json:
        facts = {"source": resolved.uri, "revision": resolved.revision, "format": resolved.format}
        out.print_json(json.dumps({**facts, "destination": saved.place, "files": dict(saved.files)}))
        return
    for path, size in saved.files.items():
        out.print(f"{saved.place}/{path}  {format_bytes(size)}", markup=False)


def _parsed(read: Callable[[str], uri.SourceUri], text: str) -> uri.SourceUri:
    """Return the canonical URI of what a user types, paths from here. Raises UserError."""
    try:
        return read(text).beneath(Path.cwd())
    except Refusal as refusal:
        raise UserError(refusal.message, fix=refusal.fix) from None


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))


def _require_apart(target: str, places: list[uri.SourceUri]) -> None:
    """Refuse to write over what is read, which --force would delete."""
    scheme, _, body = target.partition(":")
    if scheme != "path":
        return
    for place in places:
        if place.scheme == "path" and Path(place.body).resolve().is_relative_to(Path(body).resolve()):
            raise UserError(f"{body} would replace {place.body}", fix="name another folder")


def _code(path: Path | None, model_type: str | None, config: str | None, model: str | None) -> CodeSettings | None:
    options = {"--code-path": path, "--code-model-type": model_type, "--code-config": config, "--code-model": model}
    missing = [name for name, value in options.items() if not value]
    if len(missing) == len(options):
        return None
    if path is None or not (model_type and config and model):
        raise typer.BadParameter(f"a model's own code needs {', '.join(missing)} too")
    return CodeSettings(_absolute(path), (), model_type, config, model)
