"""This engine on a GPU: is it right, how fast is it, and how near to what the memory's bandwidth allows.

    python benchmarks/gpu.py [--size 1b|8b|tiny] [--streams 1,16,64,256] [--json FILE]

The model is shaped like Llama 3 and has random weights, made on the spot. Right: log-probabilities beside those of
plain `transformers` in float32 with the same weights. Near: the bytes that a step of one stream must read, its weights,
keys and values, over what a copy on the device moves in the same time. Runs on a CPU too, as the tests do with
`--size tiny`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from cogsmith.engine.loader import LoadedModel
from cogsmith.engine.request import Event, FailedEvent, GenerateRequest, TokenEvent
from cogsmith.engine.transformers_engine import TransformersEngine
from cogsmith.manifest import Limits

# hidden size, intermediate size, layers, heads, key-value heads, vocabulary, tied head
SIZES = {
    "tiny": (64, 128, 2, 4, 2, 512, True),
    "1b": (2048, 8192, 16, 32, 8, 128256, True),
    "8b": (4096, 14336, 32, 32, 8, 128256, False),
}
_MAX_CONTEXT = 2048
_CHECKED_PROMPTS = (5, 40, 100, 300, 7, 64, 33, 150)
_CHECKED_TOKENS = 16
_COPIED_BYTES = {"cuda": 2**32, "cpu": 2**28}
_COPIES = 5


@dataclass(frozen=True, slots=True)
class Speed:
    """One row: all prompts at once, then all streams decoding. `share` is of the bandwidth limit, at one stream."""

    streams: int
    prompt_tokens_per_second: float
    decode_tokens_per_second: float
    share: float | None


def random_model(size: str, device: str) -> Any:
    """Return a bfloat16 model with random weights, whose log-probabilities differ by whole units."""
    hidden, intermediate, layers, heads, kv_heads, vocabulary, tied = SIZES[size]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=_MAX_CONTEXT,
        initializer_range=hidden**-0.5,
        bos_token_id=1,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def engine_over(model: Any, streams: int) -> TransformersEngine:
    """Return an engine with a row for each of `streams`."""
    return TransformersEngine(LoadedModel("random", model, None), Limits(max_batch_size=streams))


def largest_difference(engine: TransformersEngine, truth: Any) -> float:
    """Return how far log-probabilities of `engine` are from those of the plain model `truth`, at most.

    Ragged texts run side by side, each goes on after its answer, and their five best tokens count too.
    """
    prompts = random_prompts(truth.config.vocab_size, _CHECKED_PROMPTS)
    answers = run(engine, prompts, _CHECKED_TOKENS)
    longer = [prompt + _ids(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    texts = [*zip(prompts, answers, strict=True), *zip(longer, run(engine, longer, _CHECKED_TOKENS), strict=True)]
    return max(_difference(truth, prompt, answer) for prompt, answer in texts)


def plain_difference(model: Any, truth: Any) -> float:
    """Return the same for plain `model`, over the same prompts: what its dtype costs without any engine."""
    differences: list[float] = []
    for prompt in random_prompts(truth.config.vocab_size, _CHECKED_PROMPTS):
        expected, rows = (_logprobs(one, prompt) for one in (truth, model))
        best = expected.topk(5).indices
        differences.append((expected.gather(-1, best) - rows.gather(-1, best)).abs().max().item())
    return max(differences)


@torch.inference_mode()
def _logprobs(model: Any, ids: list[int]) -> torch.Tensor:
    """Row i is the distribution after `ids[: i + 1]`, in float32."""
    return torch.log_softmax(model(torch.tensor([ids], device=model.device), use_cache=False).logits[0].float(), -1)


def _difference(truth: Any, prompt: list[int], answer: Sequence[TokenEvent]) -> float:
    rows = _logprobs(truth, prompt + _ids(answer))[len(prompt) - 1 : -1].tolist()
    differences: list[float] = [
        abs(row[token] - logprob)
        for row, event in zip(rows, answer, strict=True)
        for token, logprob in (event.top_logprobs or {}).items()
    ]
    return max(differences)


def random_prompts(vocabulary: int, lengths: Sequence[int]) -> list[list[int]]:
    """Return a prompt of each length; the longer half of them begin alike, as branches of one text do."""
    generator = torch.Generator().manual_seed(1)
    longest = torch.randint(2, vocabulary, (max(lengths),), generator=generator).tolist()
    own = torch.randint(2, vocabulary, (len(lengths),), generator=generator).tolist()
    return [[*longest[: length - 1], token] for length, token in zip(lengths, own, strict=True)]


def run(engine: TransformersEngine, prompts: Sequence[list[int]], tokens: int) -> list[list[TokenEvent]]:
    """Run all prompts at once; return each one's events. Raises RuntimeError where a stream fails."""
    events, _ = timed_run(engine, prompts, tokens)
    return events


def timed_run(
    engine: TransformersEngine, prompts: Sequence[list[int]], tokens: int
) -> tuple[list[list[TokenEvent]], list[list[float]]]:
    """Run all prompts at once; return each one's events and, in seconds from the start, when they came."""
    arrived: SimpleQueue[tuple[int, float, tuple[Event, ...]]] = SimpleQueue()
    started = time.perf_counter()
    for index, prompt in enumerate(prompts):

        def sink(new: tuple[Event, ...], index: int = index) -> None:
            arrived.put((index, time.perf_counter() - started, new))

        engine.submit(GenerateRequest(tuple(prompt), tokens, top_logprobs=5), sink)
    events: list[list[TokenEvent]] = [[] for _ in prompts]
    times: list[list[float]] = [[] for _ in prompts]
    running = len(prompts)
    while running:
        index, moment, new = arrived.get()
        for event in new:
            if isinstance(event, FailedEvent):
                raise RuntimeError(event.message)
            events[index].append(event)
            times[index].append(moment)
            running -= event.finish_reason is not None
    return events, times


def speed(model: Any, streams: int, prompt: int, tokens: int, bandwidth: float) -> Speed:
    """Measure `streams` streams of other prompts each: the second of two runs."""
    engine = engine_over(model, streams)
    vocabulary = model.config.vocab_size
    try:
        for seed in (0, 1):
            # Another first token each, so that nothing is shared and nothing of the first run is of use.
            ids = torch.randint(2, vocabulary, (streams, prompt), generator=torch.Generator().manual_seed(seed))
            ids[:, 0] = torch.randperm(vocabulary - 2)[:streams] + 2
            _, times = timed_run(engine, ids.tolist(), tokens)
    finally:
        engine.close()
    decoding_since = max(stream[0] for stream in times)
    decoded = sum(moment > decoding_since for stream in times for moment in stream)
    rate = decoded / (max(stream[-1] for stream in times) - decoding_since)
    share = rate * bytes_per_step(model, prompt + tokens // 2) / bandwidth if streams == 1 else None
    return Speed(streams, streams * prompt / decoding_since, rate, share)


def bytes_per_step(model: Any, context: int) -> float:
    """Return what one stream's step must read: every weight once, and the keys and values of `context` tokens.

    Of an input embedding that is not the head too, a single row is read.
    """
    config = model.config
    weights = sum(parameter.numel() for parameter in model.parameters())
    if not config.tie_word_embeddings:
        weights -= model.get_input_embeddings().weight.numel()
    kept = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * context
    return float((weights + kept) * model.dtype.itemsize)


def copy_bandwidth(device: str) -> float:
    """Return the bytes per second, read and written, of the best of some large copies on the device."""
    source = torch.ones(_COPIED_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(_COPIES):
        started = _now(device)
        target.copy_(source)
        best = max(best, 2 * source.numel() / (_now(device) - started))
    return best


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _ids(events: Sequence[TokenEvent]) -> list[int]:
    return [event.token for event in events]


def check(model: Any) -> dict[str, float]:
    """Return the largest differences from plain float32: of this engine in either dtype, and of plain bfloat16."""
    truth = copy.deepcopy(model).float()
    found = {"plain bfloat16": plain_difference(model, truth)}
    for dtype in (torch.float32, torch.bfloat16):
        # A copy: the engine changes how a model computes attention.
        engine = engine_over(copy.deepcopy(model).to(dtype), len(_CHECKED_PROMPTS))
        try:
            found[f"this engine, {str(dtype).removeprefix('torch.')}"] = largest_difference(engine, truth)
        finally:
            engine.close()
    return found


def report(differences: dict[str, float], speeds: Sequence[Speed], bandwidth: float, machine: str) -> str:
    """Return all of it as Markdown."""
    lines = [machine, "", "| log-probabilities of | largest difference from plain float32 |", "|---|---|"]
    lines += [f"| {name} | {value:.2g} |" for name, value in differences.items()]
    lines += ["", "| streams | prompt tokens/s | decoded tokens/s | of the bandwidth limit |", "|---|---|---|---|"]
    for one in speeds:
        share = "" if one.share is None else f"{one.share:.0%}"
        lines.append(
            f"| {one.streams} | {one.prompt_tokens_per_second:,.0f} | {one.decode_tokens_per_second:,.0f} | {share} |"
        )
    return "\n".join([*lines, "", f"A copy on the device moves {bandwidth / 1e9:,.0f} GB/s, read and written."]) + "\n"


def describe(device: str, model: Any) -> str:
    """Name the device and the model."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{name}; torch {torch.__version__}; {parameters / 1e9:.2g} B parameters, bfloat16."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--device", choices=_COPIED_BYTES, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--streams", type=lambda text: list(map(int, text.split(","))), default=[1, 16, 64, 256])
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=128, help="tokens that each stream makes")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    bandwidth = copy_bandwidth(chosen.device)
    model = random_model(chosen.size, chosen.device)
    machine = describe(chosen.device, model)
    differences = check(model)
    speeds = [speed(model, streams, chosen.prompt, chosen.tokens, bandwidth) for streams in chosen.streams]
    sys.stdout.write(report(differences, speeds, bandwidth, machine))
    if chosen.json is not None:
        found = {"differences": differences, "speeds": list(map(asdict, speeds)), "bandwidth": bandwidth}
        chosen.json.write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
