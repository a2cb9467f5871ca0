"""What a step's sampling costs: penalties, masks, log-probabilities and draws, without the model.

    python benchmarks/sampler.py [--device cuda] [--rounds 30]

Logits are bfloat16 and follow a power law, so that 0.9 of the mass lies on some 30 ids. Prints a Markdown table. On a
CPU the times are of its own work, one thread, which busy neighbours change little; on a GPU they are wall-clock times.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import GenerateRequest, Sampling
from cogsmith.engine.rules import RuleBook
from cogsmith.engine.sampler import sample
from cogsmith.engine.sequence import Sequence

HEADS = (49152, 151936)
ROWS = (1, 16)


def mask(row: int, head: int) -> range:
    """A thousand ids, other ones for each row."""
    return range(row, head, head // 1000)


def allowed(row: int, head: int) -> bytes:
    return sum(1 << i for i in mask(row, head)).to_bytes(head // 8 + 1, "little")


CASES: dict[str, Callable[[int, int], GenerateRequest]] = {
    "greedy, 20 alternatives": lambda row, head: GenerateRequest((1,), top_logprobs=20),
    "a bias of 1000 ids each": lambda row, head: GenerateRequest(
        (1,), top_logprobs=20, bias=dict.fromkeys(mask(row, head), 100.0)
    ),
    "a hard mask each, min_tokens": lambda row, head: GenerateRequest(
        (1,), top_logprobs=20, allow=allowed(row, head), min_tokens=9
    ),
    "temperature 1": lambda row, head: GenerateRequest((1,), 32, Sampling(1.0, seed=row), top_logprobs=20),
    "temperature 1, top_p 0.9": lambda row, head: GenerateRequest(
        (1,), 32, Sampling(1.0, 0.9, seed=row), top_logprobs=20
    ),
    "temperature 0.7, top_k 50": lambda row, head: GenerateRequest(
        (1,), 32, Sampling(0.7, 1.0, 50, seed=row), top_logprobs=20
    ),
    "all penalties, prompt of 2000": lambda row, head: GenerateRequest(
        tuple(range(row, 2000 + row)), 32, Sampling(0.0, 1.0, 0, 1.2, 0.5, 0.5), top_logprobs=20
    ),
    "1024 ids by name each": lambda row, head: GenerateRequest((1,), logprob_ids=tuple(range(row, 1024 + row))),
}


def rows_of(case: Callable[[int, int], GenerateRequest], rows: int, head: int) -> list[Sequence]:
    info = EngineInfo("random", "none", head, head, 4096, frozenset({2}), 1, 0, 0, 0, "bfloat16", "")
    book = RuleBook(info)
    requests = [case(row, head) for row in range(rows)]
    sequences = [Sequence.of(request, lambda events: None, rules=book.of(request)) for request in requests]
    for sequence in sequences:
        for token in range(5):
            sequence.append(token)
    return sequences


@torch.inference_mode()
def milliseconds(sequences: list[Sequence], head: int, device: str, rounds: int) -> float:
    """The quickest of so many steps; each ends with the answers on the host."""
    generator = torch.Generator().manual_seed(0)
    ranks = torch.stack([torch.randperm(head, generator=generator) for _ in sequences]) + 1
    logits = (-1.6 * ranks.log()).bfloat16().to(device)
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds = []
    for _ in range(rounds):
        started = clock()
        sample(logits.clone(), sequences, head)
        seconds.append(clock() - started)
    return min(seconds) * 1000


def hardware(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor()])[0]}, one thread"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{hardware(arguments.device)}; torch {torch.__version__}; milliseconds per step\n")  # noqa: T201
    columns = [(rows, head) for head in HEADS for rows in ROWS]
    print("| case | " + " | ".join(f"{rows} × {head}" for rows, head in columns) + " |")  # noqa: T201, RUF001
    print("|---|" + "---|" * len(columns))  # noqa: T201
    for name, case in CASES.items():
        times = [
            milliseconds(rows_of(case, *column), column[1], arguments.device, arguments.rounds) for column in columns
        ]
        print(f"| {name} | " + " | ".join(f"{took:.2f}" for took in times) + " |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
