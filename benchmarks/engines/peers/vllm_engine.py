"""vLLM by its AsyncLLM, with prefix caching on, as it is by default. Its model runs in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

from engines import machine
from engines.peers import Call, Setting
from engines.peers.in_loop import Loop

_KV_BYTES = 2**30
_MOST_ALTERNATIVES = 20


def open_peer(setting: Setting) -> VllmEngine:
    """Start the engine's process and wait until the model is loaded."""
    # By itself it would bind its threads to cores and leave one core out.
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    os.environ["OMP_NUM_THREADS"] = str(setting.threads)
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    loop = Loop()
    return VllmEngine(loop, loop.result(_engine(setting)))


async def _engine(setting: Setting) -> Any:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=str(setting.checkpoint),
            dtype=setting.dtype,
            max_model_len=2048,
            max_num_seqs=16,
            max_logprobs=_MOST_ALTERNATIVES,
            # What it gives then is what LMTP means by a log-probability: after the bias.
            logprobs_mode="processed_logprobs",
            kv_cache_memory_bytes=_KV_BYTES,
            disable_log_stats=True,
        )
    )


class VllmEngine:
    """Implements `Peer`."""

    def __init__(self, loop: Loop, engine: Any) -> None:
        self._loop = loop
        self._engine = engine
        self._numbers = itertools.count()

    def start(self, calls: Sequence[Call]) -> None:
        self._loop.start(calls, self._tokens)

    async def _tokens(self, call: Call) -> AsyncIterator[tuple[list[int], bool]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,
            max_tokens=call.max_tokens,
            ignore_eos=True,
            detokenize=False,
            logit_bias=call.bias or None,
            logprobs=call.top_logprobs or None,
            output_kind=RequestOutputKind.DELTA,
        )
        async for output in self._run(call.prompt, params):
            yield list(output.outputs[0].token_ids), output.finished

    def score(self, prompt: list[int], options: list[list[int]]) -> list[list[float]]:
        return self._loop.result(self._scores(prompt, options))

    async def _scores(self, prompt: list[int], options: list[list[int]]) -> list[list[float]]:
        return await asyncio.gather(*(self._score(prompt, option) for option in options))

    async def _score(self, prompt: list[int], option: list[int]) -> list[float]:
        from vllm import SamplingParams

        # It always makes a token too.
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        async for output in self._run(prompt + option, params):
            rows = output.prompt_logprobs
        scored = zip(rows[len(prompt) :], option, strict=True)
        return [row[token].logprob for row, token in scored]

    def _run(self, prompt: list[int], params: Any) -> AsyncIterator[Any]:
        outputs: AsyncIterator[Any] = self._engine.generate(
            {"prompt_token_ids": prompt}, params, request_id=str(next(self._numbers))
        )
        return outputs

    def model_process(self) -> int:
        return machine.largest_process(os.getpid())

    def close(self) -> None:
        self._engine.shutdown()
