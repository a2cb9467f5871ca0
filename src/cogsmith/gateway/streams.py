"""A prediction's stream as server-sent events, in Replicate's form.

Every event has an id, or Replicate's Python client would drop it; a reader that comes back with the last id it saw
goes on right after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from cogsmith.gateway.prediction import Prediction

_KEEP_ALIVE_SECONDS = 15
# With the gateway going down, streams may go on until its predictions have ended.
_DRAIN_SECONDS = 60.0


def stream(prediction: Prediction, last_event_id: str | None) -> Response:
    """Answer with the events after the one called `last_event_id`, or with all of them.

    A reader who saw the last is told not to come again: by the standard, 204 ends an event source.
    """
    position = prediction.position_after(last_event_id or "")
    if prediction.ended and position == len(prediction.events):
        return Response(status_code=204)
    return EventSourceResponse(
        _server_sent(prediction, position),
        # Not "text/event-stream; charset=utf-8": some readers compare the whole.
        headers={"Content-Type": "text/event-stream"},
        ping=_KEEP_ALIVE_SECONDS,
        sep="\n",
        shutdown_grace_period=_DRAIN_SECONDS,
    )


async def _server_sent(prediction: Prediction, position: int) -> AsyncIterator[ServerSentEvent]:
    async for event in prediction.follow(position):
        yield ServerSentEvent(event.data, event=event.event, id=event.id, sep="\n")
