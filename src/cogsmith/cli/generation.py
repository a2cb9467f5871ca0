"""One timed batch of generations: prompts in, continuations and a report out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cogsmith.client import AsyncClient, Branch, Connection, Generation, Stream
from cogsmith.client.options import GenerateOptions
from cogsmith.client.report import Report, without_padding
from cogsmith.client.tokenizer import ClientTokenizer

Prompt = str | Sequence[Mapping[str, Any]]
"""A text to continue, or chat messages to answer."""

Show = Callable[[str], None]
"""Takes the text of a single continuation, piece by piece, while it comes."""

_DEFAULT_SEED = 42


@dataclass(frozen=True, slots=True)
class Row:
    """One continuation of a prompt; `index` tells several apart. `text` has nothing of an end token or a stop text."""

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    index: int
    branch: Branch
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """All continuations, in the order of their prompts, how long they took, and what their ids mean."""

    rows: tuple[Row, ...]
    report: Report
    tokenizer: ClientTokenizer


async def generate(
    connection: Connection,
    prompts: Sequence[Prompt],
    options: GenerateOptions,
    *,
    warmup: bool = False,
    show: Show | None = None,
) -> Outcome:
    """Continue all prompts in one batch; with `warmup` once before, untimed. `show` is for a single prompt.

    Without a seed in `options`, draws are seeded where the server can. Raises what a client's calls raise.
    """
    async with connection as client:
        info = await client.model_info()
        tokenizer = await client.tokenizer()
        options = _seeded(options, info)
        if warmup:
            await _run(client, [_encode(prompt, tokenizer) for prompt in prompts], options)
        started = time.perf_counter()
        prompt_ids = [_encode(prompt, tokenizer) for prompt in prompts]
        encoded = time.perf_counter()
        generations, first = await _run(client, prompt_ids, options, show)
        generated = time.perf_counter()
        rows = tuple(_rows(prompts, prompt_ids, generations, tokenizer, info.get("eos_ids")))
        decoded = time.perf_counter()
    report = Report(
        input_tokens=[without_padding(row.prompt_ids, tokenizer.pad_id) for row in rows],
        output_tokens=[without_padding(row.branch.ids, tokenizer.pad_id) for row in rows],
        encode_latency=_milliseconds(started, encoded),
        gen_latency=_milliseconds(encoded, generated),
        decode_latency=_milliseconds(generated, decoded),
        time_to_first_token=None if first is None else _milliseconds(encoded, first),
        n_params=info.get("parameters"),
        generate_kwargs=options,
    )
    return Outcome(rows, report, tokenizer)


def _seeded(options: GenerateOptions, info: Mapping[str, Any]) -> GenerateOptions:
    """Return the options with a seed, unless they have one or the server has no use for it."""
    if "seed" in options or "seed" not in info.get("features", ()):
        return options
    return {**options, "seed": _DEFAULT_SEED}


def _encode(prompt: Prompt, tokenizer: ClientTokenizer) -> tuple[int, ...]:
    return tokenizer.encode(prompt) if isinstance(prompt, str) else tokenizer.encode_chat(prompt)


async def _run(
    client: AsyncClient, prompt_ids: Sequence[tuple[int, ...]], options: GenerateOptions, show: Show | None = None
) -> tuple[list[Generation], float | None]:
    """Return what came, and when its first token did (on `time.perf_counter`'s clock), if any."""
    if show is None:
        # Started in the same moment, they share one prediction.
        streams = [client.generate(ids, **options) for ids in prompt_ids]
        ended = await asyncio.gather(*map(_collect, streams))
    else:
        ended = [await _collect_showing(client, prompt_ids[0], options, show)]
    firsts = [first for _, first in ended if first is not None]
    return [generation for generation, _ in ended], min(firsts, default=None)


async def _collect(stream: Stream) -> tuple[Generation, float | None]:
    first = None
    async for _ in stream:
        first = first or time.perf_counter()
    return await stream.result(), first


async def _collect_showing(
    client: AsyncClient, ids: tuple[int, ...], options: GenerateOptions, show: Show
) -> tuple[Generation, float | None]:
    first = None
    text = client.text(ids, **options)
    async for piece in text:
        first = first or time.perf_counter()
        show(piece)
    return await text.tokens.result(), first


def _rows(
    prompts: Sequence[Prompt],
    prompt_ids: Sequence[tuple[int, ...]],
    generations: Sequence[Generation],
    tokenizer: ClientTokenizer,
    eos_ids: Sequence[int] | None,
) -> Iterator[Row]:
    for prompt, ids, generation in zip(prompts, prompt_ids, generations, strict=True):
        for index, branch in enumerate(generation.branches):
            yield Row(prompt, ids, index, branch, _text(ids, branch, tokenizer, eos_ids))


def _text(prompt_ids: Sequence[int], branch: Branch, tokenizer: ClientTokenizer, eos_ids: Sequence[int] | None) -> str:
    ends = branch.finish_reason == "stop" and (eos_ids is None or branch.ids[-1] in eos_ids)
    ids = branch.ids[:-1] if ends else branch.ids
    # Decoded after its prompt: by itself, some tokenizers would drop a space before the first word.
    text = tokenizer.decode([*prompt_ids, *ids])[len(tokenizer.decode(prompt_ids)) :]
    return text.partition(branch.stop)[0] if isinstance(branch.stop, str) else text


def _milliseconds(start: float, end: float) -> float:
    return (end - start) * 1000.0
