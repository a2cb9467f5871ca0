"""This engine as it is deployed: the work directory under Cog's own server, by Cogsmith's client over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack

from cogsmith.client import AsyncClient, connect
from cogsmith.gateway import cog_process
from cogsmith.manifest import MODEL_ARGS
from engines import machine
from engines.peers import Call, Setting
from engines.peers.in_loop import Loop


def open_peer(setting: Setting) -> CogServer:
    """Start the work directory's server; it inherits the environment, and so the thread count."""
    os.environ[MODEL_ARGS] = json.dumps({"dtype": setting.dtype})
    stack = ExitStack()
    server = stack.enter_context(cog_process.running(setting.work_directory))
    return CogServer(server.url, stack)


class CogServer:
    """Implements `Peer`."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._stack = stack
        self._loop = Loop()
        self._connection = connect(url)
        self._client: AsyncClient = self._loop.result(self._connection.__aenter__())

    def start(self, calls: Sequence[Call]) -> None:
        self._loop.start(calls, self._tokens)

    async def _tokens(self, call: Call) -> AsyncIterator[tuple[list[int], bool]]:
        stream = self._client.generate(
            call.prompt,
            max_tokens=call.max_tokens,
            min_tokens=call.max_tokens,
            logit_bias=call.bias,
            top_logprobs=call.top_logprobs,
        )
        async for token in stream:
            yield [token.token], token.finish_reason is not None

    def score(self, prompt: list[int], options: list[list[int]]) -> list[list[float]]:
        scored = self._loop.result(self._client.score(prompt, options))
        return [[token.logprob for token in option.tokens] for option in scored]

    def model_process(self) -> int:
        return machine.largest_process(os.getpid())

    def close(self) -> None:
        self._loop.result(self._connection.__aexit__(None, None, None))
        self._stack.close()
