"""A checkpoint for torch.distributed.checkpoint, with the kinds of things that Composer puts into one."""

from __future__ import annotations

from pathlib import Path

import torch

STATE = {
    "state": {
        "model": {
            "model.wte.weight": torch.arange(600_000.0).reshape(600, 1000),
            "model.half": torch.arange(12).reshape(3, 4).to(torch.bfloat16),
            "model.turned": torch.arange(6.0).reshape(2, 3).T,
            "model.scalar": torch.tensor(3),
            "model.none": torch.zeros(0, 4),
        },
        "optimizers": [{"x": torch.ones(2), "lr": 0.1}, {"x": torch.zeros(2), "lr": 0.2}],
        "integrations": {
            "huggingface": {
                "tokenizer": {"vocab.json": {"content": {f"t{i}": i for i in range(40)}}, "a.model": b"\x00\xff"},
                "model": {"layers": [1, 2], "eps": 1e-5, "name": None, "empty": {}},
            }
        },
        "version": torch.__version__,
        "3": {"4": "numbers as keys"},
    }
}


def places(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Return the files of `folder` as a source gives them."""
    return {prefix + path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
