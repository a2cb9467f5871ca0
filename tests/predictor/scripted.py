"""An engine that says what it is told to."""

from cogsmith.engine.base import EngineInfo


class ScriptedEngine:
    """Answers each request with the events it was made with, at once, and nothing after them."""

    info = EngineInfo("m", "e", 9, 9, 9, frozenset(), None, 0, 0, 0, "", "")

    def __init__(self, *events):
        self.events = events
        self.cancelled = 0

    def submit(self, request, sink, *, client=None):
        for event in self.events:
            sink((event,))
        return self

    def cancel(self):
        self.cancelled += 1
