"""Timed batches of generations: prompts in, continuations and a report out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cogsmith.client import AsyncClient, Branch, Connection, Generation, Stream
from cogsmith.client.options import GenerateOptions
from cogsmith.client.prompting import Asked, encode, with_stops
from cogsmith.client.report import Report, without_padding
from cogsmith.client.tokenizer import ClientTokenizer
from cogsmith.prompts.templates import Template

Prompt = Asked

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
    """The continuations of a batch, in the order of their prompts, how long they took, and what their ids mean."""

    rows: tuple[Row, ...]
    report: Report
    tokenizer: ClientTokenizer


async def generate(
    connection: Connection,
    prompts: Sequence[Prompt],
    settings: Sequence[GenerateOptions],
    *,
    template: Template | None = None,
    batch_size: int | None = None,
    warmup: bool = False,
    show: Show | None = None,
) -> list[Outcome]:
    """Continue all prompts, with each of `settings` in turn; an outcome for each batch of `batch_size` prompts.

    With `warmup` the first batch is generated once before, untimed. `show` is for a single prompt. Messages go through
    `template`, or the model's own. Without a seed in the options, draws are seeded where the server can. Raises what a
    client's calls raise.
    """
    async with connection as client:
        info = await client.model_info()
        tokenizer = await client.tokenizer()
        runs = [with_stops(_seeded(options, info), template, tokenizer) for options in settings]
        batches = list(_batches(prompts, batch_size))
        if warmup:
            await _run(client, [encode(prompt, tokenizer, template) for prompt in batches[0]], runs[0])
        return [
            await _timed(client, batch, options, tokenizer, info, template, show)
            for options in runs
            for batch in batches
        ]


async def _timed(
    client: AsyncClient,
    prompts: Sequence[Prompt],
    options: GenerateOptions,
    tokenizer: ClientTokenizer,
    info: Mapping[str, Any],
    template: Template | None,
    show: Show | None,
) -> Outcome:
    started = time.perf_counter()
    prompt_ids = [encode(prompt, tokenizer, template) for prompt in prompts]
    encoded = time.perf_counter()
    generations, first = await _run(client, prompt_ids, options, show)
    generated = time.perf_counter()
    rows = tuple(_rows(prompts, prompt_ids, generations, tokenizer, options.get("eos_ids", info.get("eos_ids"))))
    decoded = time.perf_counter()
    report = Report(
        input_tokens=[without_padding(row.prompt_ids, tokenizer.pad_id) for row in rows],
        output_tokens=[without_padding(row.branch.ids, tokenizer.pad_id) for row in rows],
        encode_latency=_milliseconds(started, encoded),
        gen_latency=_milliseconds(encoded, generated),
        decode_latency=_milliseconds(generated, decoded),
        time_to_first_token=None if first is None else _milliseconds(encoded, first),
        n_params=info.get("parameters"),
        memory_footprint=info.get("memory_footprint"),
        generate_kwargs=options,
    )
    return Outcome(rows, report, tokenizer)


def _batches(prompts: Sequence[Prompt], size: int | None) -> Iterator[Sequence[Prompt]]:
    size = size or len(prompts)
    yield from (prompts[start : start + size] for start in range(0, len(prompts), size))


def _seeded(options: GenerateOptions, info: Mapping[str, Any]) -> GenerateOptions:
    """Return the options with a seed, unless they have one or the server has no use for it."""
    if "seed" in options or "seed" not in info.get("features", ()):
        return options
    return {**options, "seed": _DEFAULT_SEED}


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
    # Nor is a stop shown that was named by its ids.
    unseen = 1 if ends else len(branch.stop) if isinstance(branch.stop, tuple) else 0
    ids = branch.ids[: len(branch.ids) - unseen]
    # Decoded after its prompt: by itself, some tokenizers would drop a space before the first word.
    text = tokenizer.decode([*prompt_ids, *ids])[len(tokenizer.decode(prompt_ids)) :]
    return text.partition(branch.stop)[0] if isinstance(branch.stop, str) else text


def _milliseconds(start: float, end: float) -> float:
    return (end - start) * 1000.0
