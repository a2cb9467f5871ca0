"""`cogsmith demo`: a model on this machine, and a page to talk to it that shows its tokens.

`cogsmith serve --demo` for people who come with a checkpoint and no config.toml. Without arguments it asks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cogsmith.cli import serve
from cogsmith.cli.console import ConsoleReporter, err
from cogsmith.gateway.assembly import Settings
from cogsmith.gateway.open_model import Overrides, open_checkpoint, open_models
from cogsmith.workdir import places

_NONE = Overrides()
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ASKED_ABOUT = "*.pth"
"""The files of LLaMA2-Accessory's and Meta's checkpoints: what they are of does not always stand beside them."""


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Work directories, checkpoint folders or files, Hub repositories."),
    ] = None,
    pretrained_path: Annotated[
        list[str] | None,
        typer.Option(
            "--pretrained-path", "--pretrained_path", help="A checkpoint; a further one is laid over the one before."
        ),
    ] = None,
    llama_type: Annotated[
        str | None, typer.Option("--llama-type", "--llama_type", help="LLaMA2-Accessory: the kind of model.")
    ] = None,
    llama_config: Annotated[
        list[Path] | None,
        typer.Option("--llama-config", "--llama_config", help="LLaMA2-Accessory: a JSON file; a later one wins."),
    ] = None,
    tokenizer_path: Annotated[
        str | None, typer.Option("--tokenizer-path", "--tokenizer_path", help="A tokenizer's folder or file.")
    ] = None,
    quant: Annotated[bool, typer.Option("--quant", help="Quantise the weights to 4 bits.")] = False,
    cuda: Annotated[bool, typer.Option("--cuda", help="Let models use the GPUs, spread over all of them.")] = False,
    n_gpus: Annotated[
        int | None, typer.Option("--n-gpus", "--n_gpus", min=0, help="Use so many GPUs; 0 is none.")
    ] = None,
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(envvar="COGSMITH_TOKEN", help="Demand this token; needed with any --host but loopback."),
    ] = None,
) -> None:
    """Serve a model with a page to talk to it that shows its tokens. Without a model it asks which, and how.

    What is said of a checkpoint here (--pretrained-path to --quant) makes one model; without that, any number of names
    may be given, as for `cogsmith serve`.
    """
    chosen = list(names or [])
    overrides = Overrides(llama_type, tuple(llama_config or ()), tokenizer_path, quant)
    if n_gpus:
        _limit_gpus(n_gpus)
    settings = Settings(host=host, port=port, cuda=cuda or bool(n_gpus), token=token, demo=True)
    if pretrained_path:
        if chosen:
            raise typer.BadParameter(f"{chosen[0]} and --pretrained-path both name a model; give one of them")
        _serve_checkpoint(pretrained_path, overrides, settings)
    elif not chosen and overrides == _NONE:
        _serve_as_answered(settings)
    elif overrides == _NONE:
        serve.run(lambda: open_models(chosen, root=Path(), reporter=ConsoleReporter()), settings)
    elif len(chosen) == 1:
        _serve_checkpoint(chosen, overrides, settings)
    else:
        raise typer.BadParameter("these options are about one checkpoint: name one, or give --pretrained-path")


def _limit_gpus(count: int) -> None:
    """Let this process and those it starts see the first `count` GPUs of those that it sees."""
    seen = os.environ.get(_VISIBLE)
    devices = [str(number) for number in range(count)] if seen is None else seen.split(",")
    os.environ[_VISIBLE] = ",".join(devices[:count])


def _serve_checkpoint(names: Sequence[str], overrides: Overrides, settings: Settings) -> None:
    serve.run(lambda: [open_checkpoint(names, overrides, root=Path(), reporter=ConsoleReporter())], settings)


def _serve_as_answered(settings: Settings) -> None:
    """Ask, and serve what comes of it."""
    name, is_built = _ask_model()
    overrides = _NONE if is_built else _ask_overrides(Path(name))
    settings = replace(settings, cuda=settings.cuda or _confirm("Use the GPUs of this machine?"))
    settings = replace(settings, port=typer.prompt("Port", default=settings.port, type=int, err=True))
    err.print(f"This is: {_as_command(name, overrides, settings)}", markup=False)
    if overrides == _NONE:
        serve.run(lambda: open_models([name], root=Path(), reporter=ConsoleReporter()), settings)
    else:
        _serve_checkpoint([name], overrides, settings)


def _ask_model() -> tuple[str, bool]:
    """The model to serve, and whether it is a work directory."""
    built = places.rendered(Path())
    for number, name in enumerate(built, start=1):
        err.print(f"  {number}  {name}", markup=False)
    question = "Model: a number above, a checkpoint's path" if built else "Model: a checkpoint's path"
    answer = str(typer.prompt(f"{question}, or ORG/NAME on the Hugging Face Hub", err=True)).strip()
    if answer.isdecimal() and 1 <= int(answer) <= len(built):
        return built[int(answer) - 1], True
    return answer, places.find(answer, Path()) is not None


def _ask_overrides(path: Path) -> Overrides:
    overrides = _NONE
    if any(path.glob(_ASKED_ABOUT)):
        overrides = Overrides(
            llama_type=_ask("LLaMA2-Accessory's type of the model"),
            llama_config=tuple(map(Path, (_ask("JSON files of its configuration, spaces between") or "").split())),
            tokenizer=_ask("Path of its tokenizer"),
        )
    return replace(overrides, quant=_confirm("Quantise the weights to 4 bits?"))


def _ask(question: str) -> str | None:
    """The answer; None where it is left to the checkpoint's own folder."""
    answer = str(typer.prompt(f"{question} (empty: as its folder says)", default="", show_default=False, err=True))
    return answer.strip() or None


def _confirm(question: str) -> bool:
    return typer.confirm(question, default=False, err=True)


def _as_command(name: str, overrides: Overrides, settings: Settings) -> str:
    """The same without questions."""
    words = ["cogsmith demo", name]
    words += [f"--llama-type {overrides.llama_type}"] if overrides.llama_type else []
    words += [f"--llama-config {path}" for path in overrides.llama_config]
    words += [f"--tokenizer-path {overrides.tokenizer}"] if overrides.tokenizer else []
    words += ["--quant"] if overrides.quant else []
    words += ["--cuda"] if settings.cuda else []
    words += [f"--port {settings.port}"]
    return " ".join(words)
