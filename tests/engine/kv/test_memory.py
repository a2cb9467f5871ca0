"""What leases say is in their pages must be there, whatever others do: the pages' contents are played beside them."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogsmith.engine.kv.memory import KVMemory

PAGE = 4


class Played:
    """Pages with tokens in them, and texts that are computed token by token, as an engine would."""

    def __init__(self, num_pages, *, shares=True):
        self.memory = KVMemory(num_pages, page_size=PAGE, shares=shares)
        self.contents = [[None] * PAGE for _ in range(num_pages)]
        self.open = {}
        self.computed = 0

    def start(self, name, tokens, limit=None):
        lease = self.memory.open(tokens, len(tokens) - 1 if limit is None else limit)
        if lease is not None:
            self.open[name] = (lease, list(tokens))
        self._apply_changes()
        return lease

    def compute(self, name, count):
        """Compute up to `count` of a text's tokens."""
        lease, tokens = self.open[name]
        self._apply_changes()
        stop = min(len(tokens), lease.num_computed + count)
        for position in range(lease.num_computed, stop):
            self.contents[lease.pages[position // PAGE]][position % PAGE] = tokens[position]
            self.computed += 1
        self.memory.commit(lease, tokens, stop)

    def grow(self, name, token):
        """Add a token to a text, where there is room for it."""
        lease, tokens = self.open[name]
        fits = self.memory.reserve(lease, len(tokens) + 1)
        self._apply_changes()
        if fits:
            tokens.append(token)
        return fits

    def stop(self, name):
        lease, _ = self.open.pop(name)
        self.memory.close(lease)

    def in_pages(self, name):
        """The computed tokens of a text, as its pages hold them."""
        lease, _ = self.open[name]
        places = [divmod(position, PAGE) for position in range(lease.num_computed)]
        return [self.contents[lease.pages[page]][place] for page, place in places]

    def check(self):
        for name, (lease, tokens) in self.open.items():
            assert self.in_pages(name) == tokens[: lease.num_computed]
            assert len(set(lease.pages)) == len(lease.pages)
        reserved = [page for lease, _ in self.open.values() for page in lease.pages[known_pages(self.memory, lease) :]]
        pages = [*self.memory._free, *self.memory._tree.pages(), *reserved]
        assert sorted(pages) == list(range(self.memory.num_pages)), "a page is lost or has two owners"

    def _apply_changes(self):
        for change in self.memory.take_changes():
            self.contents[change.page] = [None] * PAGE if change.source is None else list(self.contents[change.source])


def known_pages(memory, lease):
    return -(-lease.num_computed // PAGE) if memory.shares else 0


def run(played, name, tokens):
    """Compute a whole text and end it; return how many tokens had to be computed."""
    before = played.computed
    assert played.start(name, tokens) is not None
    played.compute(name, len(tokens))
    played.check()
    played.stop(name)
    return played.computed - before


@pytest.mark.parametrize(
    ("first", "second", "computed"),
    [
        ("abcdefgh", "abcdefghij", 2),  # two full pages, and what follows
        ("abcdef", "abcdefgh", 2),  # the second page is gone on with
        ("abcdef", "abcdxy", 2),  # a border between pages
        ("abcdef", "abcdey", 1),  # within a page: its beginning is copied
        ("abcdefgh", "abcdefgh", 1),  # the last token's logits are wanted, so it is computed again
        ("abc", "abc", 1),
        ("abc", "xyz", 3),
        ("abcdefgh", "ab", 1),
    ],
)
def test_what_is_known_is_not_computed_again(first, second, computed):
    played = Played(10)
    run(played, "first", list(first))
    assert run(played, "second", list(second)) == computed


def test_a_live_text_shares_what_it_has_computed_so_far():
    played = Played(10)
    played.start("long", list("abcdefghij"))
    played.compute("long", 7)
    lease = played.start("other", list("abcdefghxy"))
    assert lease.num_computed == 7
    played.compute("long", 3)
    played.compute("other", 3)
    played.check()


def test_texts_that_grow_alike_end_up_in_the_same_pages():
    played = Played(20)
    for name in ("one", "two"):
        played.start(name, list("abcd"))
    for name in ("one", "two"):
        played.compute(name, 4)
        for token in "efghijkl":
            assert played.grow(name, token)
            played.compute(name, 1)
        played.check()
    (one, _), (two, _) = played.open.values()
    assert one.pages[:3] == two.pages[:3]


def test_the_text_used_longest_ago_is_forgotten_first():
    played = Played(4)
    run(played, "a", list("aaaabbbb"))
    run(played, "c", list("ccccdddd"))
    run(played, "a again", list("aaaabbbb"))
    run(played, "e", list("eeee"))
    assert run(played, "a", list("aaaabbbb")) == 1
    assert run(played, "c", list("ccccdddd")) > 1


def test_texts_under_way_are_never_forgotten_and_a_full_memory_says_so():
    played = Played(3)
    played.start("a", list("aaaabbbb"))
    played.compute("a", 8)
    assert played.start("b", list("ccccdddd")) is None
    played.check()
    assert played.start("b", list("cccc")) is not None
    assert not played.grow("a", "x")
    played.stop("b")
    assert played.grow("a", "x")
    played.check()


def test_what_is_discarded_is_computed_again_and_what_others_go_on_from_stays():
    played = Played(20)
    played.start("spoiled", list("abcdefghij"))
    played.compute("spoiled", 10)
    played.start("other", list("abcdxyz"))
    played.compute("other", 7)
    lease, _ = played.open.pop("spoiled")
    played.memory.discard(lease)
    played.check()
    assert played.start("again", list("abcdefghij")).num_computed == 4
    played.check()


def test_no_more_is_matched_than_asked_for():
    played = Played(10)
    run(played, "first", list("abcdefgh"))
    assert played.start("second", list("abcdefgh"), limit=5).num_computed == 5
    played.check()


def test_without_sharing_room_is_counted_and_nothing_reused():
    played = Played(4, shares=False)
    assert run(played, "first", list("abcdefgh")) == 8
    assert run(played, "second", list("abcdefgh")) == 8
    assert played.start("long", list("abcdefghijklmnopq")) is None
    played.check()


def test_thousands_of_texts_leave_no_more_behind_than_there_are_pages():
    played = Played(16)
    draw = random.Random(0)
    for _ in range(1500):
        run(played, "text", [draw.randrange(3) for _ in range(draw.randint(1, 30))])
    assert len(played.memory._tree._queue) <= 1024


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_happens_pages_hold_what_their_leases_say(data):
    played = Played(data.draw(st.integers(1, 12)), shares=data.draw(st.booleans()))
    tokens = st.integers(0, 1)
    for step in range(data.draw(st.integers(1, 40))):
        names = sorted(played.open)
        action = data.draw(st.sampled_from(["start", "compute", "grow", "stop"] if names else ["start"]))
        if action == "start":
            played.start(step, data.draw(st.lists(tokens, min_size=1, max_size=20)))
        else:
            name = data.draw(st.sampled_from(names))
            if action == "compute":
                played.compute(name, data.draw(st.integers(1, 6)))
            elif action == "grow":
                played.grow(name, data.draw(tokens))
            else:
                played.stop(name)
        played.check()
    for name in sorted(played.open):
        played.stop(name)
    played.check()
