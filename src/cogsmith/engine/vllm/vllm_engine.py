"""The engine over vLLM: requests in, token events out, from any thread.

vLLM is asynchronous: its event loop has a thread here, on which sinks are called. The model runs in other processes.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from cogsmith.engine import constraint
from cogsmith.engine.admission import ENDING, admit, check_room, for_tokens, streamed
from cogsmith.engine.base import EngineInfo, Handle
from cogsmith.engine.fair_queue import FairQueue
from cogsmith.engine.grammars import Grammars
from cogsmith.engine.request import AnyRequest, FailedEvent, GenerateRequest, Sink
from cogsmith.engine.sequence import Sequence
from cogsmith.engine.vllm.run import Runner
from cogsmith.errors import RequestError
from cogsmith.manifest import Limits

_log = logging.getLogger("cogsmith.engine")


class VLLMEngine:
    """An `engine.base.Engine` over vLLM, which is started at once and may take minutes. `close()` it when done."""

    def __init__(self, args: AsyncEngineArgs, info: EngineInfo, limits: Limits, tokenizer: Any | None) -> None:
        self._limits = limits
        self._waiting = FairQueue[Sequence]()
        self._tasks: dict[Sequence, asyncio.Task[None]] = {}
        self._lock = threading.Lock()
        self._num_present = 0
        self._closing = False
        self._llm = AsyncLLM.from_engine_args(args)
        self.info = _with_memory(info, self._llm)
        self._grammars = Grammars(tokenizer, info)
        self._runner = Runner(self._llm, info, map(str, itertools.count()), limits.max_batch_size)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: AnyRequest, sink: Sink, *, client: Hashable = None) -> Handle:
        """Queue a request. Raises RequestError at once for one that can never run, or when the queue is full."""
        request = streamed(for_tokens(request))
        admit(request, self.info, self._limits)
        sequence = Sequence.of(request, sink)
        sequence.client = client
        if isinstance(request, GenerateRequest):
            sequence.constraint = constraint.start(request, self._grammars, self.info)
        with self._lock:
            self._check_open()
            self._num_present += 1
            self._loop.call_soon_threadsafe(self._add, sequence)
        return _Handle(sequence, self._cancel_soon)

    def healthy(self) -> bool:
        """Whether vLLM's processes live, and the thread that talks to them."""
        return self._thread.is_alive() and not self._llm.errored

    def close(self) -> None:
        """End all streams, vLLM's processes and the engine's thread."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._grammars.close()
        # vLLM's destructor fails when the interpreter is half taken down.
        del self._llm, self._runner

    def _check_open(self) -> None:
        if self._closing:
            raise RequestError(ENDING)
        check_room(self._num_present, self._limits)

    def _add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)
        self._fill()

    def _fill(self) -> None:
        """Start what waits, as far as there are rows: vLLM itself would let nobody overtake."""
        while len(self._waiting) and len(self._tasks) < self._limits.max_batch_size and not self._closing:
            sequence = next(iter(self._waiting))
            self._waiting.remove(sequence)
            task = self._tasks[sequence] = self._loop.create_task(self._run(sequence))
            # Not in the task itself: one that is cancelled before it begins never runs.
            task.add_done_callback(functools.partial(self._ended, sequence))

    async def _run(self, sequence: Sequence) -> None:
        try:
            await self._runner.run(sequence)
        except Exception as error:
            sequence.emit(FailedEvent(_reason(error)))

    def _ended(self, sequence: Sequence, task: asyncio.Task[None]) -> None:
        del self._tasks[sequence]
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._num_present -= 1
        self._fill()

    def _cancel_soon(self, sequence: Sequence) -> None:
        with self._lock:
            if not self._closing:
                self._loop.call_soon_threadsafe(self._cancel, sequence)

    def _cancel(self, sequence: Sequence) -> None:
        if sequence in self._tasks:
            self._tasks[sequence].cancel()
        elif sequence in list(self._waiting):
            self._waiting.remove(sequence)
            self._leave()

    async def _end_all(self) -> None:
        for sequence in (*self._tasks, *self._waiting):
            sequence.emit(FailedEvent(ENDING))
            sequence.cancelled = True
        await _stop(self._tasks.values())
        self._llm.shutdown()
        await _stop(asyncio.all_tasks() - {asyncio.current_task()})


class _Handle:
    """A request under way."""

    def __init__(self, sequence: Sequence, cancel: Callable[[Sequence], Any]) -> None:
        self._sequence = sequence
        self._cancel = cancel

    def cancel(self) -> None:
        """Stop the stream."""
        if not self._sequence.cancelled:
            self._sequence.cancel()
            self._cancel(self._sequence)


def _with_memory(info: EngineInfo, llm: AsyncLLM) -> EngineInfo:
    """Add how many tokens' keys and values there is memory for, which only the start shows."""
    cache = llm.vllm_config.cache_config
    return replace(info, details={**info.details, "kv_cache_tokens": cache.num_gpu_blocks * cache.block_size})


async def _stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _reason(error: Exception) -> str:
    if isinstance(error, VLLMClientError):
        return f"vLLM refuses this: {error}"
    if isinstance(error, EngineDeadError):
        return "vLLM has ended; the server has to be started again"
    _log.error("a stream failed", exc_info=error)
    cause = error.__cause__ or error
    return f"the engine failed: {type(cause).__name__}: {cause}"
