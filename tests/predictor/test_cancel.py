"""The cancellation shim against asyncio itself, used the way Cog's runtime uses it."""

import asyncio
import threading

import pytest

from cogsmith.predictor import cancel


@pytest.fixture
def loop():
    cancel.install()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def pick_up_hook():
    return cancel.current_hook()


def test_cancelling_a_finished_future_still_fires_its_hook(loop):
    future = asyncio.run_coroutine_threadsafe(pick_up_hook(), loop)
    hook = future.result(5)
    fired = []
    hook.on_cancel(lambda: fired.append(1))
    future.cancel()
    future.cancel()
    assert fired == [1]


def test_a_listener_that_comes_after_the_cancel_is_called_at_once(loop):
    future = asyncio.run_coroutine_threadsafe(pick_up_hook(), loop)
    hook = future.result(5)
    future.cancel()
    fired = []
    hook.on_cancel(lambda: fired.append(1))
    assert fired == [1]


def test_each_prediction_has_a_hook_of_its_own(loop):
    futures = [asyncio.run_coroutine_threadsafe(pick_up_hook(), loop) for _ in range(2)]
    hooks = [future.result(5) for future in futures]
    fired = []
    for name, hook in enumerate(hooks):
        hook.on_cancel(lambda name=name: fired.append(name))
    futures[1].cancel()
    assert fired == [1]


def test_a_coroutine_that_still_waits_is_cancelled_as_ever(loop):
    started, ended = threading.Event(), []

    async def wait():
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    future = asyncio.run_coroutine_threadsafe(wait(), loop)
    assert started.wait(5)
    assert future.cancel()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)
    assert ended == ["cancelled"]


def test_results_and_exceptions_pass_through(loop):
    async def fail():
        raise KeyError("reason")

    with pytest.raises(KeyError, match="reason"):
        asyncio.run_coroutine_threadsafe(fail(), loop).result(5)
    assert asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "value"), loop).result(5) == "value"


def test_installing_twice_wraps_once():
    cancel.install()
    wrapped = asyncio.run_coroutine_threadsafe
    cancel.install()
    assert asyncio.run_coroutine_threadsafe is wrapped


def test_outside_a_prediction_there_is_no_hook():
    assert cancel.current_hook() is None
