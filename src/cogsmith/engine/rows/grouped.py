"""Attention over pages by torch's own kernels: each group's pages are gathered, its rows padded. On any device."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from cogsmith.engine.rows.attention import Heads, States
from cogsmith.engine.rows.groups import Group, group_rows
from cogsmith.engine.rows.plan import Plan
from cogsmith.engine.rows.pool import Pool


class GroupedStep:
    """One step's attention. Its pool lays pages out head by head: what is gathered is then as the kernels like it."""

    def __init__(self, plan: Plan, pool: Pool) -> None:
        self._plan = plan
        self._pool = pool
        self._plans: dict[torch.device, Plan] = {}
        self._groups: dict[tuple[torch.device, int | None], list[_Work]] = {}

    def attend(self, layer: int, states: States, heads: Heads) -> torch.Tensor:
        """Write the step's keys and values to their pages, and attend group by group."""
        keys, values = self._pool.keys[layer], self._pool.values[layer]
        plan = self._plan_on(keys.device)
        keys.flatten(1, 2).index_copy_(1, plan.slots, states.key.transpose(0, 1))
        values.flatten(1, 2).index_copy_(1, plan.slots, states.value.transpose(0, 1))
        works = self._works(plan, heads.window)
        if len(works) == 1 and works[0].is_whole_line:
            return works[0].attend(states.query, keys, values, heads)
        out = states.query.new_empty(*states.query.shape[:2], states.value.shape[2])
        for work in works:
            group = work.group
            found = work.attend(states.query[group.tokens.flatten()], keys, values, heads)
            out.index_copy_(0, group.tokens.flatten()[group.kept], found[group.kept])
        return out

    def _plan_on(self, device: torch.device) -> Plan:
        if device not in self._plans:
            self._plans[device] = self._plan.on(device)
        return self._plans[device]

    def _works(self, plan: Plan, window: int | None) -> list[_Work]:
        place = plan.device, window
        if place not in self._groups:
            self._groups[place] = [_Work(group, plan) for group in group_rows(plan, window)]
        return self._groups[place]


class _Work:
    """A group with what its layers share: the mask in the form that kernels take, and room for what is gathered."""

    def __init__(self, group: Group, plan: Plan) -> None:
        self.group = group
        self.num_rows, self.num_queries = group.tokens.shape
        self.is_whole_line = group.is_whole_line
        self._bias: torch.Tensor | None = None
        self._rooms: dict[tuple[int, ...], torch.Tensor] = {}

    def attend(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, heads: Heads) -> torch.Tensor:
        """`[rows * queries, query heads, dim]` in, over a layer's pages; the same with the values' dim out."""
        num_heads, shared_by = keys.shape[0], query.shape[1] // keys.shape[0]
        # Query heads that share keys lie under each other as if they were tokens: one query alone is slow.
        packed = query.view(self.num_rows, self.num_queries, num_heads, shared_by, -1).permute(2, 0, 3, 1, 4)
        packed = packed.reshape(num_heads, self.num_rows, shared_by * self.num_queries, -1)
        found = self._kernel(
            packed, self._gather(keys, 0), self._gather(values, 1), self._mask(shared_by, query), heads
        )
        found = found.view(num_heads, self.num_rows, shared_by, self.num_queries, -1).permute(1, 3, 0, 2, 4)
        return found.reshape(len(query), query.shape[1], -1)

    def _gather(self, store: torch.Tensor, which: int) -> torch.Tensor:
        """The rows' keys or values, `[heads, rows, length, dim]`."""
        num_heads, _, page_size, dim = store.shape
        shape = (num_heads, len(self.group.table), page_size, dim)
        if (which, *shape) not in self._rooms:
            self._rooms[which, *shape] = store.new_empty(shape)
        room = self._rooms[which, *shape]
        torch.index_select(store, 1, self.group.table, out=room)
        return room.view(num_heads, self.num_rows, -1, dim)

    def _mask(self, shared_by: int, like: torch.Tensor) -> torch.Tensor:
        """What is added to the scores, `[1, rows, shared_by * queries, length]`."""
        if self._bias is None:
            visible = self.group.visible
            bias = torch.zeros(visible.shape, dtype=like.dtype, device=like.device).masked_fill_(~visible, -torch.inf)
            self._bias = bias.repeat(1, shared_by, 1)[None]
        return self._bias

    @staticmethod
    def _kernel(
        query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, heads: Heads
    ) -> torch.Tensor:
        if heads.softcap is None and heads.sinks is None:
            return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=heads.scale)
        return _attend_plainly(query, keys, values, mask, heads)


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
