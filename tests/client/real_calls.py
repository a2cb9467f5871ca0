"""Calls of real servers, and what a plain model answers to them."""

from __future__ import annotations

import asyncio

import torch

from cogsmith.client import connect

from ..engine.models import plain_logprobs


def call(place, work, **settings):
    async def main():
        async with connect(place, **settings) as client:
            return await asyncio.wait_for(work(client), 90)

    return asyncio.run(main())


def greedy(model, prompt, count, allowed=None):
    """Plain greedy decoding: ids, and each one's log-probability among those allowed."""
    ids, logprobs = list(prompt), []
    for _ in range(count):
        row = plain_logprobs(model, ids)[-1]
        if allowed is not None:
            mask = torch.full_like(row, -torch.inf)
            mask[list(allowed)] = 0.0
            row = torch.log_softmax(row + mask, dim=-1)
        ids.append(int(row.argmax()))
        logprobs.append(row[ids[-1]].item())
    return tuple(ids[len(prompt) :]), logprobs
