"""Who holds which pages of the KV cache: leases on them, shared beginnings, and what is forgotten first.

The engine's thread alone uses it. Pages are numbers here; a row back-end knows what is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cogsmith.engine.kv.prefix_tree import Match, Node, PrefixTree, common_prefix

PAGE_SIZE = 16
"""Tokens of a page: small enough to waste little at a text's end, large enough to be copied in one stroke."""


@dataclass(eq=False, slots=True)
class Lease:
    """A text's pages, in order; the first `num_computed` tokens are in them. `node` is the last that the tree knows.

    Only the page of a node that is not full is written to, and that belongs to this lease alone. What is in the pages
    of a lease that `is_alone` is nobody else's, ever: the tree does not know it.
    """

    pages: list[int]
    node: Node
    num_computed: int
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class PageChange:
    """What is to become of a page before the next step: zeros, or with the first `num_tokens` tokens of `source`.

    A page that changes hands is cleared, because a model that overflowed may have left infinities there: a mask hides
    what they are, but 0 times infinity is no number. For the same reason no more is copied than is used. Changes are
    made in order, and a page is cleared before it is copied to.
    """

    page: int
    source: int | None = None
    num_tokens: int = 0


class KVMemory:
    """`num_pages` pages of `page_size` tokens. Without `shares`, no text uses another's: only the room is counted."""

    def __init__(self, num_pages: int, *, page_size: int = PAGE_SIZE, shares: bool = True) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self.shares = shares
        self.clear()

    def clear(self) -> None:
        """Forget all texts and leases: no lease made before may be used any more."""
        self._tree = PrefixTree(self.page_size)
        self._free = list(range(self.num_pages - 1, -1, -1))
        self._changes: list[PageChange] = []

    def num_known(self, tokens: Sequence[int], limit: int) -> int:
        """How many of the first `limit` tokens need not be computed."""
        if not self.shares:
            return 0
        match = self._tree.find(tokens, limit)
        return len(match.nodes) * self.page_size + match.num_partial

    def open(self, tokens: Sequence[int], limit: int) -> Lease | None:
        """Lease pages for all of `tokens`, with what is known of the first `limit`; None where there is no room."""
        match = self._tree.find(tokens, limit) if self.shares else Match([], None, 0)
        lease = self._adopt(match)
        # Found inside a page that another text uses, or goes on from otherwise: that page is to be copied.
        source = match.partial if lease.node is not match.partial else None
        if source is not None and self._reserve_beside(source, lease, len(tokens)):
            self._changes.append(PageChange(lease.pages[len(match.nodes)], source.page, match.num_partial))
            self.commit(lease, tokens, lease.num_computed + match.num_partial)
        elif not self.reserve(lease, len(tokens)):
            self.close(lease)
            return None
        return lease

    def open_alone(self, num_tokens: int, num_computed: int) -> Lease | None:
        """Lease pages for a text whose first `num_computed` tokens will come from outside; None without room.

        Others must not begin with it: what came from outside need not be what the model computes.
        """
        lease = Lease([], self._tree.root, num_computed, is_alone=True)
        return lease if self.reserve(lease, num_tokens) else None

    def _reserve_beside(self, kept: Node, lease: Lease, num_tokens: int) -> bool:
        """Reserve without forgetting `kept`."""
        self._tree.take(kept)
        fits = self.reserve(lease, num_tokens)
        self._tree.leave(kept)
        return fits

    def reserve(self, lease: Lease, num_tokens: int) -> bool:
        """Have room for `num_tokens` tokens in all, forgetting idle texts for it; False where that is not enough."""
        missing = -(-num_tokens // self.page_size) - len(lease.pages)
        taken: list[int] = []
        while len(taken) < missing:
            page = self._free.pop() if self._free else self._tree.evict()
            if page is None:
                self._free.extend(taken)
                return False
            taken.append(page)
        lease.pages.extend(taken)
        self._changes.extend(map(PageChange, taken))
        return True

    def commit(self, lease: Lease, tokens: Sequence[int], num_computed: int) -> None:
        """Make the first `num_computed` tokens, now in the lease's pages, known to others."""
        while self.shares and not lease.is_alone and lease.num_computed < num_computed:
            start = lease.num_computed
            stop = min(num_computed, (start // self.page_size + 1) * self.page_size)
            if start % self.page_size == 0:
                self._move(lease, self._tree.add(lease.node, lease.pages[start // self.page_size], tokens[start]))
            self._extend(lease, tokens[start:stop])
            lease.num_computed = stop
        lease.num_computed = num_computed

    def close(self, lease: Lease) -> None:
        """Give the lease back. What it computed stays known until its room is needed."""
        if lease.is_alone:
            self._free.extend(reversed(lease.pages))
            return
        num_known = -(-lease.num_computed // self.page_size) if self.shares else 0
        self._free.extend(reversed(lease.pages[num_known:]))
        self._tree.leave(lease.node)
        self._drop_repeated(lease.node)

    def discard(self, lease: Lease) -> None:
        """Give the lease back, and forget what it computed: all of its text that no other goes on from."""
        path = list(self._tree.path(lease.node))
        self.close(lease)
        for node in path:
            if node.is_idle and node.parent is not None:
                self._tree.remove(node)
                self._free.append(node.page)

    def take_changes(self) -> list[PageChange]:
        """What is to be done to pages before the next step; each is told once."""
        changes, self._changes = self._changes, []
        return changes

    def _adopt(self, match: Match) -> Lease:
        """A lease on a match's full pages, and on its partial one where that can be written on."""
        lease = Lease([node.page for node in match.nodes], match.nodes[-1] if match.nodes else self._tree.root, 0)
        lease.num_computed = len(match.nodes) * self.page_size
        partial = match.partial
        if partial is not None and partial.is_idle and len(partial.tokens) == match.num_partial < self.page_size:
            lease.pages.append(partial.page)
            lease.node = partial
            lease.num_computed += match.num_partial
        self._tree.take(lease.node)
        return lease

    def _move(self, lease: Lease, node: Node) -> None:
        self._tree.take(node)
        self._tree.leave(lease.node)
        lease.node = node

    def _extend(self, lease: Lease, tokens: Sequence[int]) -> None:
        mine = lease.node
        node = self._tree.extend(mine, tokens)
        if node is not mine:
            # Another has computed the same text meanwhile: use its page, and have one of them.
            self._move(lease, node)
            self._free.append(mine.page)
            lease.pages[lease.num_computed // self.page_size] = node.page
            self._tree.remove(mine)

    def _drop_repeated(self, node: Node) -> None:
        """Free an idle last page whose tokens another page begins with."""
        parent = node.parent
        if parent is None or not node.is_idle or len(node.tokens) == self.page_size:
            return
        siblings = parent.children[node.tokens[0]]
        if any(
            other is not node and common_prefix(other.tokens, node.tokens) == len(node.tokens) for other in siblings
        ):
            self._tree.remove(node)
            self._free.append(node.page)
