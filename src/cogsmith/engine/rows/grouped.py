"""Attention over pages by torch's own kernels: each group's pages are gathered, its rows padded. On any device.

What several rows begin with is gathered once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from cogsmith.engine.rows.attention import Heads, States
from cogsmith.engine.rows.groups import Group, arrange
from cogsmith.engine.rows.plan import Plan
from cogsmith.engine.rows.pool import Pool


class GroupedStep:
    """One step's attention. Its pool lays pages out head by head: what is gathered is then as the kernels like it."""

    def __init__(self, plan: Plan, pool: Pool) -> None:
        self._plan = plan
        self._pool = pool
        self._plans: dict[torch.device, Plan] = {}
        self._arranged: dict[tuple[torch.device, int | None, bool], _Arranged] = {}

    def attend(self, layer: int, states: States, heads: Heads) -> torch.Tensor:
        """Write the step's keys and values to their pages, and attend group by group."""
        keys, values = self._pool.keys[layer], self._pool.values[layer]
        plan = self._plan_on(keys.device)
        keys.flatten(1, 2).index_copy_(1, plan.slots, states.key.transpose(0, 1))
        values.flatten(1, 2).index_copy_(1, plan.slots, states.value.transpose(0, 1))
        arranged = self._arrange(plan, heads.window, shares=_gives_sums(states, heads))
        if arranged.is_whole_line:
            return arranged.groups[0].attend(states.query, keys, values, heads)[0]
        out = states.query.new_empty(*states.query.shape[:2], states.value.shape[2])
        sums = torch.empty(out.shape[:2], device=out.device) if arranged.beginnings else None
        for work in arranged.groups:
            found, its_sums = work.attend(states.query[work.tokens], keys, values, heads, with_sums=sums is not None)
            out.index_copy_(0, work.kept_tokens, found[work.group.kept])
            if sums is not None and its_sums is not None:
                sums.index_copy_(0, work.kept_tokens, its_sums[work.group.kept])
        for work in arranged.beginnings:
            found, its_sums = work.attend(states.query[work.tokens], keys, values, heads, with_sums=True)
            if sums is not None and its_sums is not None:
                share = torch.sigmoid(its_sums - sums[work.tokens])[..., None]
                merged = torch.lerp(out[work.tokens].float(), found.float(), share)
                out.index_copy_(0, work.tokens, merged.to(out.dtype))
        return out

    def _plan_on(self, device: torch.device) -> Plan:
        if device not in self._plans:
            self._plans[device] = self._plan.on(device)
        return self._plans[device]

    def _arrange(self, plan: Plan, window: int | None, *, shares: bool) -> _Arranged:
        place = plan.device, window, shares
        if place not in self._arranged:
            arrangement = arrange(plan, window, shares=shares)
            self._arranged[place] = _Arranged(
                [_Work(group) for group in arrangement.groups], [_Work(group) for group in arrangement.beginnings]
            )
        return self._arranged[place]


def _gives_sums(states: States, heads: Heads) -> bool:
    """Whether there is a kernel that tells the softmax's sums, by which a beginning's part is merged."""
    plain = heads.softcap is None and heads.sinks is None
    return plain and states.key.shape == states.value.shape and states.key.device.type == "cpu"


@dataclass(frozen=True, slots=True)
class _Arranged:
    groups: list[_Work]
    beginnings: list[_Work]

    @property
    def is_whole_line(self) -> bool:
        return not self.beginnings and len(self.groups) == 1 and self.groups[0].group.is_whole_line


class _Work:
    """A group with what its layers share: the mask in the form that kernels take, and room for what is gathered."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.tokens = group.tokens.flatten()
        self.kept_tokens = self.tokens[group.kept]
        self._rows, self._queries = group.tokens.shape
        self._masks: dict[tuple[int, torch.dtype], torch.Tensor] = {}
        self._rooms: dict[tuple[int, ...], torch.Tensor] = {}

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, heads: Heads, *, with_sums: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`[rows * queries, query heads, dim]` in, over a layer's pages; the same with the values' dim out.

        With it the logarithms of the softmax's sums, float32 `[rows * queries, query heads]`, if they are asked for.
        """
        num_heads, shared_by = keys.shape[0], query.shape[1] // keys.shape[0]
        # Query heads that share keys lie under each other as if they were tokens: one query alone is slow.
        packed = query.view(self._rows, self._queries, num_heads, shared_by, -1).permute(2, 0, 3, 1, 4)
        packed = packed.reshape(num_heads, self._rows, shared_by * self._queries, -1)
        mask = self._mask(shared_by, query.dtype)
        found, sums = _kernel(packed, self._gather(keys, 0), self._gather(values, 1), mask, heads, with_sums=with_sums)
        found = found.view(num_heads, self._rows, shared_by, self._queries, -1).permute(1, 3, 0, 2, 4)
        if sums is not None:
            sums = sums.view(num_heads, self._rows, shared_by, self._queries).permute(1, 3, 0, 2)
            sums = sums.reshape(len(query), query.shape[1])
        return found.reshape(len(query), query.shape[1], -1), sums

    def _gather(self, store: torch.Tensor, which: int) -> torch.Tensor:
        """The rows' keys or values, `[heads, rows, length, dim]`."""
        num_heads, _, page_size, dim = store.shape
        shape = (num_heads, len(self.group.table), page_size, dim)
        if (which, *shape) not in self._rooms:
            self._rooms[which, *shape] = store.new_empty(shape)
        room = self._rooms[which, *shape]
        torch.index_select(store, 1, self.group.table, out=room)
        return room.view(num_heads, self._rows, -1, dim)

    def _mask(self, shared_by: int, dtype: torch.dtype) -> torch.Tensor | None:
        """What is added to the scores, `[1, rows, shared_by * queries, length]`."""
        visible = self.group.visible
        if visible is None:
            return None
        if (shared_by, dtype) not in self._masks:
            mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)
            self._masks[shared_by, dtype] = mask.repeat(1, shared_by, 1)[None]
        return self._masks[shared_by, dtype]


def _kernel(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    heads: Heads,
    *,
    with_sums: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if with_sums:
        # The kernel that `scaled_dot_product_attention` calls on a CPU; only by its own name does it tell the sums.
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        found, sums = kernel(query, keys, values, 0.0, False, attn_mask=mask, scale=heads.scale)
        return found, sums
    if heads.softcap is None and heads.sinks is None:
        return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=heads.scale), None
    if mask is None:
        raise TypeError("what is capped or has sinks is not shared")
    return _attend_plainly(query, keys, values, mask, heads), None


def _attend_plainly(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, heads: Heads
) -> torch.Tensor:
    """Attention as it is written down, for what torch's kernels do not have.

    Scores are capped as in Gemma 2, `softcap * tanh(scores / softcap)`; a sink takes part in the softmax and has no
    value, as in gpt-oss.
    """
    scores = query @ keys.transpose(-1, -2) * heads.scale
    if heads.softcap is not None:
        scores = torch.tanh(scores / heads.softcap) * heads.softcap
    scores = scores + mask
    if heads.sinks is not None:
        shared_by = len(heads.sinks) // len(scores)
        column = heads.sinks.view(-1, shared_by).repeat_interleave(scores.shape[2] // shared_by, dim=1)
        scores = torch.cat([scores, column[:, None, :, None].expand(-1, scores.shape[1], -1, -1).to(scores.dtype)], -1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32)[..., : keys.shape[2]]
    return weights.to(query.dtype) @ values
