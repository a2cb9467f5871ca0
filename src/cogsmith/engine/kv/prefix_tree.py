"""Which texts have their keys and values in memory: a radix tree whose nodes are pages.

A node holds the tokens of one page behind those of its parents: `page_size` of them, fewer at a text's end. Texts that
begin alike share nodes, as in SGLang's RadixAttention (Zheng et al. 2024). A match is by token: where it ends inside
a page, that page's first tokens are worth copying.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

_MOST_COMPARED = 64
"""Siblings looked at for a match inside a page: thousands of texts may begin with one and the same token."""

_LEAST_QUEUE = 1024


@dataclass(eq=False, slots=True)
class Node:
    """A page and its tokens. `users` counts the texts under way that end here: it is kept while there are any."""

    parent: Node | None
    page: int
    tokens: list[int] = field(default_factory=list)
    children: dict[int, dict[Node, None]] = field(default_factory=dict)
    """By first token, oldest first."""
    full: dict[tuple[int, ...], Node] = field(default_factory=dict)
    """Children whose page is full, by all of its tokens: one node for one text."""
    users: int = 0
    last_used: int = 0
    is_queued: bool = False
    """Whether it stands in the tree's queue for eviction, where it may have become busy again."""

    @property
    def is_idle(self) -> bool:
        """Whether nobody's text ends here or goes on from here."""
        return not self.users and not self.children


@dataclass(frozen=True, slots=True)
class Match:
    """The longest known beginning of a text: full pages `nodes`, then `num_partial` tokens of the page of `partial`."""

    nodes: list[Node]
    partial: Node | None
    num_partial: int


class PrefixTree:
    """Finds, adds and evicts pages of text. It owns no pages: `evict` gives them back."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.root = Node(None, -1)
        self._clock = itertools.count(1)
        self._order = itertools.count()
        self._queue: list[tuple[int, int, Node]] = []
        self._longest_queue = _LEAST_QUEUE

    def find(self, tokens: Sequence[int], limit: int) -> Match:
        """Return what is known of the first `limit` tokens, and count it as used now."""
        now, node, nodes = next(self._clock), self.root, []
        for start, stop in pairwise(range(0, limit + 1, self.page_size)):
            child = node.full.get(tuple(tokens[start:stop]))
            if child is None:
                break
            child.last_used = now
            nodes.append(child)
            node = child
        start = len(nodes) * self.page_size
        partial, num_partial = self._closest(node, tokens[start : min(limit, start + self.page_size)])
        if partial is not None:
            partial.last_used = now
        return Match(nodes, partial, num_partial)

    def add(self, parent: Node, page: int, first_token: int) -> Node:
        """Put an empty node behind `parent`, for a text that goes on with `first_token`."""
        node = Node(parent, page, last_used=next(self._clock))
        parent.children.setdefault(first_token, {})[node] = None
        return node

    def extend(self, node: Node, tokens: Sequence[int]) -> Node:
        """Add tokens to a node's page; return the node that holds them now.

        That is another one where the page became full and the same text was there already.
        """
        node.tokens.extend(tokens)
        if len(node.tokens) < self.page_size or node.parent is None:
            return node
        return node.parent.full.setdefault(tuple(node.tokens), node)

    def take(self, node: Node) -> None:
        """Count a text that now ends at `node`."""
        node.users += 1

    def leave(self, node: Node) -> None:
        """Count a text that ends at `node` no more."""
        node.users -= 1
        node.last_used = next(self._clock)
        self._offer(node)

    def remove(self, node: Node) -> None:
        """Cut off a node that nobody uses."""
        parent = node.parent
        if parent is None:
            raise ValueError("the root is no page")
        siblings = parent.children[node.tokens[0]]
        del siblings[node]
        if not siblings:
            del parent.children[node.tokens[0]]
        key = tuple(node.tokens)
        if parent.full.get(key) is node:
            del parent.full[key]
        node.parent = None
        self._offer(parent)

    def evict(self) -> int | None:
        """Forget the text that was used longest ago; return its last page, None where all are in use."""
        while self._queue:
            last_used, _, node = heapq.heappop(self._queue)
            node.is_queued = False
            if node.last_used != last_used:
                self._offer(node)
            elif node.parent is not None and node.is_idle:
                self.remove(node)
                return node.page
        return None

    def path(self, node: Node) -> Iterator[Node]:
        """A node and those before it, without the root."""
        while node.parent is not None:
            yield node
            node = node.parent

    def pages(self) -> Iterator[int]:
        """All pages in the tree."""
        stack = [self.root]
        while stack:
            node = stack.pop()
            if node is not self.root:
                yield node.page
            stack.extend(child for siblings in node.children.values() for child in siblings)

    def _offer(self, node: Node) -> None:
        if node.is_queued or not node.is_idle or node.parent is None:
            return
        node.is_queued = True
        heapq.heappush(self._queue, (node.last_used, next(self._order), node))
        if len(self._queue) > self._longest_queue:
            # Nodes that were cut off still stand there.
            self._queue = [entry for entry in self._queue if entry[2].parent is not None]
            heapq.heapify(self._queue)
            self._longest_queue = max(_LEAST_QUEUE, 2 * len(self._queue))

    def _closest(self, node: Node, tokens: Sequence[int]) -> tuple[Node | None, int]:
        """The child that begins with most of `tokens`, and with how many."""
        best, most = None, 0
        siblings = node.children.get(tokens[0], {}) if tokens else {}
        for child in itertools.islice(reversed(siblings), _MOST_COMPARED):
            common = common_prefix(child.tokens, tokens)
            if common > most:
                best, most = child, common
        return best, most


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens `a` and `b`, two sequences of one type, have in common at their beginning."""
    low, high = 0, min(len(a), len(b))
    # Comparing slices runs in C: halving needs few of them where a loop would look at each token.
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
