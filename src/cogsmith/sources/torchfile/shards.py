"""Checkpoints in many files that are not of torch.distributed.checkpoint: told by their names, and refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from cogsmith.errors import SourceError

_DEEPSPEED = re.compile(r"(zero_pp_rank_\d+_)?mp_rank_\d+_(model|optim)_states\.pt|(bf16_)?zero_pp_rank_.*\.pt")
_RANK = re.compile(r"rank(\d+)\.pt")
METADATA = ".metadata"


def refuse_other_shards(names: Iterable[str]) -> None:
    """Raise SourceError where the files `names` (relative POSIX paths) are DeepSpeed's, or FSDP's before torch 2.

    Neither can be put together from its files alone: they say nothing of how each tensor was cut.
    """
    paths = [PurePosixPath(name) for name in names]
    if any("deepspeed" in path.parts[:-1] or _DEEPSPEED.fullmatch(path.name) for path in paths):
        raise SourceError(
            "this checkpoint was written by DeepSpeed, in pieces that cannot be read here",
            fix="run DeepSpeed's own zero_to_fp32.py beside the checkpoint, and name the file that it writes",
        )
    ranks = {path.name for path in paths if _RANK.fullmatch(path.name)}
    if ranks and not any(path.name == METADATA for path in paths):
        raise SourceError(
            f"this checkpoint was sharded by FSDP before PyTorch 2 ({', '.join(sorted(ranks))[:100]}), "
            "in pieces that cannot be read here",
            fix='load it with the Composer that wrote it, and save it with fsdp_state_dict_type "full"',
        )
