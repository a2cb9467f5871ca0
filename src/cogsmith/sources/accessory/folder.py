"""Which files of a folder are a checkpoint of LLaMA2-Accessory's or Meta's, told by their names alone.

    consolidated.NN-of-MM.model.pth        Accessory's: whole weights
    consolidated.NN-of-MM.model-diff.pth   Accessory's: differences from another checkpoint
    consolidated.NN.pth                    Meta's own release: whole weights

NN counts from 0 and is the rank in model parallelism. A folder holds one of these families. What training leaves
beside them (`*.optimizer.pth`, `*.other.pth`, `rank-specific-*.pth`) is never opened.
The names are LLaMA2-Accessory's (accessory/util/tensor_parallel.py, FORMAT_FILENAME_PATTERNS).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Family = Literal["accessory", "diff", "meta"]

CONFIG, PARAMS, META = "config.json", "params.json", "meta.json"
"""Accessory's model arguments, Meta's, and Accessory's llama_type."""
SPM = "tokenizer.model"
HF_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
HF_EXTRAS = ("special_tokens_map.json", "chat_template.jinja")

_PATTERNS: dict[Family, re.Pattern[str]] = {
    "accessory": re.compile(r"consolidated\.(\d+)-of-(\d+)\.model\.pth"),
    "diff": re.compile(r"consolidated\.(\d+)-of-(\d+)\.model-diff\.pth"),
    "meta": re.compile(r"consolidated\.(\d+)\.pth"),
}
_HF_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")


@dataclass(frozen=True, slots=True)
class Found:
    """The shards of a folder in their order; empty with `problems` where they make no whole checkpoint."""

    family: Family
    shards: tuple[str, ...]
    problems: tuple[str, ...] = ()


def is_checkpoint(names: Collection[str]) -> bool:
    """Tell whether files of these names, relative to a folder, are such a checkpoint, and no Hugging Face one."""
    return any(_family(name) for name in names) and not any(_HF_WEIGHTS.fullmatch(name) for name in names)


def find(names: Collection[str]) -> Found:
    """Return the family and its shards, with every fault of their names in `problems`."""
    by_family: dict[Family, list[str]] = {}
    for name in sorted(names):
        if family := _family(name):
            by_family.setdefault(family, []).append(name)
    if not by_family:
        return Found("accessory", (), ("it holds no consolidated.NN-of-MM.model.pth, …model-diff.pth or NN.pth",))
    if len(by_family) > 1:
        found = " and ".join(names[0] for names in by_family.values())
        return Found("accessory", (), (f"it holds files of several checkpoints: {found}",))
    family, shards = next(iter(by_family.items()))
    problems = _faults_of_ranks(family, shards)
    return Found(family, () if problems else tuple(shards), tuple(problems))


def side_files(names: Collection[str], *, tokenizer: bool) -> tuple[str, ...]:
    """Return the files beside the shards that are read: arguments, type and, if asked for, the tokenizer's."""
    wanted = (CONFIG, PARAMS, META, *(tokenizer_files(names) if tokenizer else ()))
    return tuple(name for name in wanted if name in names)


def tokenizer_files(names: Collection[str]) -> tuple[str, ...]:
    """Return the tokenizer's files: SentencePiece's where there are both, as LLaMA2-Accessory looks; () for none."""
    if SPM in names:
        return (SPM,)
    models = [name for name in names if name.endswith(".model") and "/" not in name]
    if len(models) == 1 and len(names) == 1:
        return (models[0],)
    if all(name in names for name in HF_TOKENIZER):
        return (*HF_TOKENIZER, *(name for name in HF_EXTRAS if name in names))
    return ()


def other_shard(name: str, saved_as: str) -> bool:
    """Tell whether a file called `name` is another shard, by the name that it was saved under."""
    now, then = (_numbers(one) for one in (name, saved_as))
    return bool(now and then) and any(ours != theirs for ours, theirs in zip(now, then, strict=False))


def _numbers(name: str) -> list[int]:
    """Return a shard's rank and, where the name says it, their number; nothing for another name."""
    matches = (pattern.fullmatch(name) for pattern in _PATTERNS.values())
    return next(([int(text) for text in match.groups()] for match in matches if match), [])


def _family(name: str) -> Family | None:
    return next((family for family, pattern in _PATTERNS.items() if pattern.fullmatch(name)), None)


def _faults_of_ranks(family: Family, shards: list[str]) -> list[str]:
    """Compare the ranks that are there with those that the names, or the last of them, announce."""
    numbers = [
        [int(text) for text in match.groups()] for name in shards if (match := _PATTERNS[family].fullmatch(name))
    ]
    ranks = [rank for rank, *_ in numbers]
    totals = sorted({total for _, *rest in numbers for total in rest})
    if len(totals) > 1:
        return [f"its shards are of checkpoints in {' and '.join(map(str, totals))} parts: {', '.join(shards)}"]
    total = totals[0] if totals else max(ranks) + 1
    faults = [f"{_name(shards[0], rank)} is missing" for rank in range(total) if rank not in ranks]
    faults += [f"{name} is one too many" for name, rank in zip(shards, ranks, strict=True) if rank >= total]
    twice = sorted({rank for rank in ranks if ranks.count(rank) > 1})
    return faults + [f"there are several files of rank {rank}" for rank in twice]


def _name(like: str, rank: int) -> str:
    return re.sub(r"\d+", lambda number: f"{rank:0{len(number[0])}d}", like, count=1)
