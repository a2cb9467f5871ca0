"""Keys under which running branches can be cancelled."""

import threading

from cogsmith.predictor.mailbox import Mailbox
from cogsmith.predictor.registry import Registry


def cancelled(mailbox):
    """The streams that a mailbox was told are cancelled."""
    return sorted(stream for stream, (event,) in mailbox.take() if event.reason == "cancelled")


def test_every_branch_of_a_key_is_told_in_its_own_prediction():
    registry, first, second = Registry(), Mailbox(5), Mailbox(5)
    registry.add("k", first, 0)
    registry.add("k", first, 3)
    registry.add("k", second, 0)
    registry.add("other", second, 1)
    assert registry.cancel("k") == 3
    assert (cancelled(first), cancelled(second)) == ([0, 3], [0])
    assert len(registry) == 1


def test_an_unknown_key_cancels_nothing():
    assert Registry().cancel("k") == 0


def test_a_branch_that_was_removed_or_cancelled_is_not_counted_again():
    registry, mailbox = Registry(), Mailbox(5)
    registry.add("k", mailbox, 0)
    registry.add("k", mailbox, 1)
    registry.remove("k", mailbox, 0)
    assert [registry.cancel("k"), registry.cancel("k")] == [1, 0]
    registry.remove("k", mailbox, 1)
    assert len(registry) == 0


def test_threads_cancel_each_branch_once():
    registry, mailbox = Registry(), Mailbox(5)
    counts = []

    def work():
        for stream in range(500):
            registry.add("k", mailbox, stream)
            counts.append(registry.cancel("k"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    told = len(mailbox.take())
    # The same stream twice at once is one branch.
    assert sum(counts) == told <= 2000
    assert len(registry) == 0
