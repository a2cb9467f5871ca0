"""When a stream ends; what it says then, the conformance suite has for every engine."""

from cogsmith.engine.request import GenerateRequest

from .models import engine_over, run, tiny_llama


def test_a_servers_limit_narrows_the_context():
    engine = engine_over(tiny_llama(), max_context=16)
    (events,) = run(engine, GenerateRequest(tuple(range(10)), 100))
    assert [event.finish_reason for event in events] == [None] * 5 + ["length"]
    engine.close()
