"""`./build --demo`: from a bare clone to tokens under a constraint, on the example's first model."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cogsmith import config, lmtp
from cogsmith.cli.console import ConsoleReporter, out
from cogsmith.cli.extras import with_extras
from cogsmith.cli.folders import shown
from cogsmith.cli.serving import served
from cogsmith.client.cog_server import Prediction
from cogsmith.config.model import EXAMPLE
from cogsmith.errors import MissingExtra, ServeError
from cogsmith.manifest import CHECKPOINT
from cogsmith.workdir.build import build
from cogsmith.workdir.render import templates_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ALLOWED = 100.0


def run_demo() -> None:
    """Build the example's first model, serve it under the real Cog runtime, and run three operations on it."""
    with_extras(_require_engine)
    project = config.load(_example(), allow_placeholder=True)
    name = next(iter(project.models))
    _headline(f"1. Build {name}")
    folder = with_extras(lambda: build(project, [name], reporter=ConsoleReporter()))[0].folder
    out.print(f"{shown(folder)} is a complete Cog work directory.", markup=False)
    _headline("2. Start it under the real Cog runtime")
    started = time.monotonic()
    with served(folder) as server:
        out.print(f"ready on {server.url} after {time.monotonic() - started:.1f} s", markup=False)
        demo = _Demo(server.url, _tokenizer(folder))
        demo.generate_freely("Once upon a time, there was a", max_tokens=12)
        demo.generate_digits("World War II ended in the year ", max_tokens=4)
        demo.score("The opposite of hot is", (" cold", " warm", " blue"))
    _headline("What next")
    commands = _what_next(name)
    width = max(map(len, commands))
    for command, meaning in commands.items():
        out.print(f"  {command:<{width}}  {meaning}", markup=False)


def _what_next(name: str) -> dict[str, str]:
    cogsmith = shown(Path(sys.executable).absolute().parent / "cogsmith")
    return {
        f'{cogsmith} predict {name} --prompt "Once upon a time"': "one prediction, no Docker",
        f"{cogsmith} serve {name}": "Replicate's API and LMTP in front of it",
        f"{cogsmith} inspect {name}": "parameters, memory, layers",
        f"cp {EXAMPLE} config.toml": "then list your own models and run ./build",
        f"work/{name}/push": "sends it to your account (needs the cog tool and Docker)",
    }


class _Demo:
    """Three operations, each in a prediction of its own, each printed as its tokens come."""

    def __init__(self, url: str, tokenizer: Tokenizer) -> None:
        self._url = url
        self._tokenizer = tokenizer

    def generate_freely(self, prompt: str, *, max_tokens: int) -> None:
        """Continue a prompt greedily."""
        _headline("3. A free generation: each token, its log-probability, what else could have come")
        self._generate(prompt, max_tokens, {})

    def generate_digits(self, prompt: str, *, max_tokens: int) -> None:
        """Continue a prompt with nothing but digits: a mask that lifts their logits above all others."""
        _headline("4. A masked generation: only digits may come out")
        self._generate(prompt, max_tokens, dict.fromkeys(self._encode("0123456789"), _ALLOWED))

    def score(self, prompt: str, options: Sequence[str]) -> None:
        """Compare continuations by the log-probability the model gives each."""
        _headline("5. Scoring alternatives: which continuation does the model find likelier?")
        operations = [
            lmtp.Score(prompt=self._encode(prompt), scored=self._encode(option), stream_id=i)
            for i, option in enumerate(options)
        ]
        totals = dict.fromkeys(range(len(options)), 0.0)
        started = time.monotonic()
        for token in self._tokens(operations):
            totals[token.stream_id] += token.logprob
        seconds = time.monotonic() - started
        mass = sum(math.exp(total) for total in totals.values())
        out.print(f"{prompt!r} ...", markup=False)
        _row("option", "log-probability", "share")
        for option, total in zip(options, totals.values(), strict=True):
            _row(repr(option), f"{total:.4f}", f"{math.exp(total) / mass:.1%}")
        _timing(f"{len(options)} options in {seconds:.2f} s")

    def _generate(self, prompt: str, max_tokens: int, bias: Mapping[int, float]) -> None:
        ids = self._encode(prompt)
        operation = lmtp.Generate(prompt=ids, max_tokens=max_tokens, logit_bias=bias, top_logprobs=3, stream_id=1)
        out.print(f"{prompt!r} ...", markup=False)
        _row("token", "log-probability", "the likeliest three")
        tokens: list[int] = []
        started, first = time.monotonic(), 0.0
        for token in self._tokens([operation]):
            first = first or time.monotonic() - started
            tokens.append(token.token)
            _row(self._show(token.token), f"{token.logprob:.4f}", self._alternatives(token))
        seconds = time.monotonic() - started
        out.print(f"text: {prompt}{self._tokenizer.decode(tokens)}", markup=False)
        _timing(f"first token after {first:.2f} s, {len(tokens)} tokens in {seconds:.2f} s")

    def _tokens(self, operations: Sequence[lmtp.Operation]) -> Iterator[lmtp.Token]:
        prediction = Prediction(self._url, {"ops_batch_json": lmtp.serialize_batch(operations)})
        reader = lmtp.LineReader()
        for chunk in prediction.chunks():
            for line in reader.feed(chunk):
                for message in lmtp.parse_line(line):
                    if not isinstance(message, lmtp.Token):
                        raise ServeError(f"the model answered {message}")
                    yield message

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _show(self, token: int) -> str:
        return repr(self._tokenizer.decode([token], skip_special_tokens=False))

    def _alternatives(self, token: lmtp.Token) -> str:
        ranked = sorted((token.top_logprobs or {}).items(), key=lambda item: -item[1])
        return "  ".join(f"{self._show(id_)} {math.exp(logprob):.1%}" for id_, logprob in ranked)


def _example() -> Path:
    """The commented example config in the current folder: the project's own, else the installed package's copy."""
    example = Path(EXAMPLE).absolute()
    if not example.is_file():
        # `work/` will lie beside it, so it must not be used where the package is installed.
        shutil.copyfile(templates_folder() / EXAMPLE, example)
    return example


def _require_engine() -> None:
    try:
        import tokenizers  # noqa: F401
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtra("engine,gguf", "The demo, which runs a model on this machine,") from None


def _tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / CHECKPOINT / "tokenizer.json"))


def _headline(text: str) -> None:
    out.print(f"\n{text}", style="bold", markup=False)


def _timing(text: str) -> None:
    out.print(f"({text})", style="dim", markup=False)


def _row(name: str, logprob: str, rest: str) -> None:
    # Printed row by row, as tokens come, where a table would wait for the last one.
    out.print(f"  {name:<14}{logprob:>15}    {rest}", markup=False)
