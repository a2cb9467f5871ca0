import threading
import time

import pytest

from cogsmith.engine.request import ComputedEvent, FailedEvent, TokenEvent
from cogsmith.errors import RequestError
from cogsmith.predictor import mailbox as module
from cogsmith.predictor.mailbox import Cancelled, DeadlinePassed, Mailbox

EVENT = (TokenEvent(1, -0.5),)


def test_what_is_there_is_taken_together_in_order():
    mailbox = Mailbox(10)
    for stream in (2, 1, 2):
        mailbox.sink(stream)(EVENT)
    assert mailbox.take() == [(2, EVENT), (1, EVENT), (2, EVENT)]


def test_take_waits_for_the_first_event():
    mailbox = Mailbox(10)
    threading.Timer(0.05, mailbox.sink(7), [EVENT]).start()
    assert mailbox.take() == [(7, EVENT)]


def test_the_only_event_of_a_stream_is_found_among_those_of_others():
    mailbox, said = Mailbox(10), ComputedEvent(None, None)
    mailbox.sink(1)((FailedEvent("another's"),))
    mailbox.sink(2)(EVENT)
    threading.Timer(0.05, mailbox.sink(2), [(said,)]).start()
    assert mailbox.take_only(2, ComputedEvent) is said


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda mailbox: mailbox.sink(2)((FailedEvent("no memory"),)), "no memory"),
        (lambda mailbox: mailbox.cancel_stream(2), "the client cancelled this"),
    ],
)
def test_a_stream_that_fails_before_its_only_event_says_why(end, reason):
    mailbox = Mailbox(10)
    end(mailbox)
    with pytest.raises(RequestError, match=reason):
        mailbox.take_only(2, ComputedEvent)


@pytest.fixture
def endless_waits(monkeypatch):
    """Waits that nothing but an event or the deadline ends: this test would not end either."""
    monkeypatch.setattr(module, "_POLL_SECONDS", 3600.0)


@pytest.mark.usefixtures("endless_waits")
def test_a_cancel_wakes_a_waiting_take():
    mailbox = Mailbox(3600)
    threading.Timer(0.05, mailbox.cancel).start()
    with pytest.raises(Cancelled):
        mailbox.take()


@pytest.mark.usefixtures("endless_waits")
def test_the_deadline_ends_the_waiting_and_not_before():
    started = time.monotonic()
    with pytest.raises(DeadlinePassed, match=r"the prediction has had its 0\.1 seconds"):
        Mailbox(0.1).take()
    assert time.monotonic() - started >= 0.1


def test_events_do_not_put_off_the_deadline():
    """A stream that never pauses still ends in time."""
    mailbox = Mailbox(0.05)
    time.sleep(0.06)
    mailbox.sink(0)(EVENT)
    with pytest.raises(DeadlinePassed):
        mailbox.take()


@pytest.mark.usefixtures("endless_waits")
def test_a_streams_deadline_wakes_a_waiting_take_and_ends_that_stream_only():
    mailbox = Mailbox(3600)
    mailbox.set_deadline(4, 3000)
    mailbox.set_deadline(7, 0.1)
    started = time.monotonic()
    ((stream, (event,)),) = mailbox.take()
    assert (stream, event.reason) == (7, "deadline")
    assert time.monotonic() - started >= 0.09


@pytest.mark.usefixtures("endless_waits")
def test_what_came_before_a_streams_deadline_is_taken_before_it():
    mailbox = Mailbox(3600)
    mailbox.set_deadline(1, 0.02)
    time.sleep(0.03)
    mailbox.sink(1)(EVENT)
    mailbox.sink(2)(EVENT)
    taken = mailbox.take()
    assert taken[:2] == [(1, EVENT), (2, EVENT)]
    assert [(stream, event.reason) for stream, (event,) in taken[2:]] == [(1, "deadline")]


@pytest.mark.usefixtures("endless_waits")
def test_the_predictions_own_deadline_comes_before_a_later_one_of_a_stream():
    mailbox = Mailbox(0.05)
    mailbox.set_deadline(1, 3000)
    with pytest.raises(DeadlinePassed):
        mailbox.take()


@pytest.mark.usefixtures("endless_waits")
def test_another_thread_ends_a_stream():
    mailbox = Mailbox(3600)
    threading.Timer(0.05, mailbox.cancel_stream, [3]).start()
    ((stream, (event,)),) = mailbox.take()
    assert (stream, event.reason) == (3, "cancelled")


def test_elapsed_counts_from_the_start():
    times = iter([100.0, 100.5, 103.25])
    mailbox = Mailbox(10, clock=lambda: next(times))
    assert [mailbox.elapsed(), mailbox.elapsed()] == [0.5, 3.25]
