"""What the gateway costs: the same streams from a bare Cog server, through Replicate's API and over the WebSocket.

    python benchmarks/gateway.py WORK_DIRECTORY [--streams 16] [--tokens 64]

Each way is measured twice: with a prediction for each stream, as LMQL asks, and with all streams in one. Take a model
that costs little, such as a tiny random one, or its own time hides the rest. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from cogsmith.client import AsyncClient, connect
from cogsmith.gateway import cog_process
from cogsmith.gateway.models import describe

ROUNDS = 3

Measured = tuple[float, float]
"""Seconds to the first token and to the last."""


async def one_stream(client: AsyncClient, prompt: list[int], tokens: int) -> Measured:
    started = time.perf_counter()
    first = 0.0
    async for _ in client.generate(prompt, max_tokens=tokens):
        first = first or time.perf_counter() - started
    return first, time.perf_counter() - started


async def all_streams(endpoint: str, streams: int, tokens: int, *, together: bool, **settings: Any) -> list[Measured]:
    """Run the streams at once, in one prediction where `together`."""
    async with AsyncExitStack() as stack:
        number = 1 if together else streams
        clients = [await stack.enter_async_context(connect(endpoint, **settings)) for _ in range(number)]
        await asyncio.gather(*(client.model_info() for client in clients))
        return await asyncio.gather(
            *(one_stream(clients[i % number], [i % 100 + 1, 7], tokens) for i in range(streams))
        )


def row(name: str, endpoint: str, streams: int, tokens: int, *, together: bool, **settings: Any) -> str:
    """Measure some rounds, and return the best as a row of the table."""
    rounds = [asyncio.run(all_streams(endpoint, streams, tokens, together=together, **settings)) for _ in range(ROUNDS)]
    best = min(rounds, key=lambda measured: max(last for _, last in measured))
    firsts = [first * 1000 for first, _ in best]
    rate = streams * tokens / max(last for _, last in best)
    shape = "one" if together else "one each"
    return f"| {name} | {shape} | {rate:,.0f} | {statistics.median(firsts):.0f} | {max(firsts):.0f} |"


@contextmanager
def gateway(folder: Path) -> Iterator[str]:
    """Start `cogsmith serve` in a process of its own; give its URL once the model is ready."""
    command = [sys.executable, "-m", "cogsmith.cli.main", "serve", str(folder), "--port", "0"]
    # A file takes any number of lines of its log, while a pipe that nobody reads would stop it.
    with tempfile.NamedTemporaryFile() as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield _url_when_ready(process, Path(log.name))
        finally:
            process.terminate()


def _url_when_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    while process.poll() is None:
        text = log.read_text()
        if "\nready: " in text and (found := re.search(r"listening on (\S+)\n", text)):
            return found.group(1)
        time.sleep(0.1)
    raise SystemExit(f"cogsmith serve ended before its model was ready:\n{log.read_text()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="WORK_DIRECTORY")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    chosen = parser.parse_args()
    size = (chosen.streams, chosen.tokens)
    rows = ["| way | predictions | tokens/s | first token, median ms | slowest ms |", "|---|---|---|---|---|"]
    with cog_process.running(chosen.folder) as server:
        rows += [row("bare Cog", server.url, *size, together=together) for together in (False, True)]
    with gateway(chosen.folder) as url:
        name = f"replicate:local/{describe(chosen.folder).name}"
        for together in (False, True):
            rows.append(row("Replicate's API", name, *size, together=together, base_url=url, token="any"))
        for together in (False, True):
            rows.append(row("WebSocket", url.replace("http", "ws", 1), *size, together=together))
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
