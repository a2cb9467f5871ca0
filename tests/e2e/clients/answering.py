"""Serves functions of a client's script to the test that started it.

This runs in the client's own environment. Each line on stdin is `[function, arguments]`; each answer is one line on
stdout, `{"result": ...}` or `{"error": traceback}`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

CALL_SECONDS = 100


def answer_calls(*functions: Callable[..., Any]) -> None:
    """Answer until stdin ends. A coroutine function runs on one loop that all calls share."""
    by_name = {function.__name__: function for function in functions}
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            name, arguments = json.loads(line)
            try:
                answer = {"result": _call(runner, by_name[name], arguments)}
            except Exception:
                answer = {"error": traceback.format_exc()}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _call(runner: asyncio.Runner, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    if not inspect.iscoroutinefunction(function):
        return function(**arguments)

    async def bounded() -> Any:
        async with asyncio.timeout(CALL_SECONDS):
            return await function(**arguments)

    return runner.run(bounded())
