"""Attention over pages by FlashAttention, as torch carries it: one kernel for prompts and decoding rows, on a GPU.

The kernel reads pages where they lie. It wants `[pages, page_size, heads, dim]`, half precision, and pages of 256
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cogsmith.engine.rows.attention import Heads, States
from cogsmith.engine.rows.plan import Plan
from cogsmith.engine.rows.pool import Pool

PAGE_SIZE = 256


@dataclass(frozen=True, slots=True)
class Lines:
    """Where each row is, in the kernel's words.

    `slots` `[tokens]` is where the new keys and values go, `starts` `[rows + 1]` where each row's tokens begin in the
    line, `lengths` `[rows]` how many keys it has, `table` `[rows, pages]` its pages. `most_new` and `most_keys` bound
    what one row has.
    """

    slots: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    table: torch.Tensor
    most_new: int
    most_keys: int


def lines_of(plan: Plan) -> Lines:
    """Say a plan in the kernel's words."""
    count = int(plan.num_pages.max())
    table = np.stack([plan.pages(row, 0, count) for row in range(len(plan.lengths))])
    stops = plan.starts + plan.lengths
    return Lines(
        slots=plan.slots,
        starts=plan.tensor(np.concatenate([plan.offsets, [plan.lengths.sum()]]).astype(np.int32)),
        lengths=plan.tensor(stops.astype(np.int32)),
        table=plan.tensor(table.astype(np.int32)),
        most_new=int(plan.lengths.max()),
        most_keys=int(stops.max()),
    )


class VarlenStep:
    """One step's attention. Its pool lays pages out token by token."""

    def __init__(self, lines: Lines, pool: Pool) -> None:
        self._lines = lines
        self._pool = pool

    def attend(self, layer: int, states: States, heads: Heads) -> torch.Tensor:
        """Write the step's keys and values to their pages, and attend. Raises TypeError for scores that are capped."""
        from torch.nn.attention.varlen import AuxRequest, varlen_attn

        if heads.softcap is not None:
            raise TypeError("the kernel caps no scores")
        lines, keys, values = self._lines, self._pool.keys[layer], self._pool.values[layer]
        keys.flatten(0, 1).index_copy_(0, lines.slots, states.key)
        values.flatten(0, 1).index_copy_(0, lines.slots, states.value)
        found, aux = varlen_attn(
            states.query.contiguous(),
            keys,
            values,
            cu_seq_q=lines.starts,
            cu_seq_k=None,
            max_q=lines.most_new,
            max_k=lines.most_keys,
            return_aux=AuxRequest(lse=True),
            scale=heads.scale,
            window_size=(-1 if heads.window is None else heads.window - 1, 0),
            enable_gqa=keys.shape[2] != states.query.shape[1],
            seqused_k=lines.lengths,
            block_table=lines.table,
        )
        return found if heads.sinks is None else _with_sinks(found, aux, heads.sinks)


def _with_sinks(found: torch.Tensor, lse: torch.Tensor, sinks: torch.Tensor) -> torch.Tensor:
    """Let a sink per head take part in a softmax that is done, whose sum is `exp(lse)`, `[tokens, heads]`."""
    share = torch.sigmoid(lse.float() - sinks.float())
    return found * share[..., None].to(found.dtype)
