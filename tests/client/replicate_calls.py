"""Calls through Replicate's API."""

from __future__ import annotations

import asyncio

from cogsmith.client import connect

MODEL = "replicate:o/m"


def call(work, endpoint=MODEL, **settings):
    """Run `work(client)` and return what it returns."""

    async def main():
        async with connect(endpoint, **settings) as client:
            return await asyncio.wait_for(work(client), 30)

    return asyncio.run(main())


def generate(prompt=(1, 2), **options):
    return lambda client: client.generate(prompt, **options).result()
