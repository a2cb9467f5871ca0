"""Drawing a token: temperature first, then top_k, then top_p over what top_k left, as transformers orders them.

Each draw inverts a cumulative distribution at one number of the stream's own. Every operation works on each row by
itself, so a stream's draws do not depend on its batch mates; nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import pad

from cogsmith.engine.ranking import BLOCK, Ranked
from cogsmith.engine.request import Sampling
from cogsmith.engine.transfer import to_device

_NUCLEUS_CANDIDATES = 128
"""A nucleus is looked for among so many ids at first."""

# Beyond these, a float32 divided by the temperature would turn into infinities and NaN.
_COLDEST, _HOTTEST = 1e-30, 1e30


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row's token is drawn, at `uniform` in [0, 1). `temperature` 0 takes the likeliest.

    Only the `limit` likeliest ids count, and of these the `top_p` part; `limit` None is for the whole vocabulary.
    """

    temperature: float
    limit: int | None
    top_p: float
    uniform: float
    noise: torch.Tensor | None = None
    """Exponential numbers, one for each id of the head: the id whose probability is largest by its number is drawn."""

    @classmethod
    def of(cls, sampling: Sampling, vocab_size: int, uniform: float, noise: torch.Tensor | None = None) -> Draw:
        """Return how a request's settings draw from so many ids."""
        if sampling.temperature <= 0:
            return cls(0.0, 1, 1.0, 0.0)
        temperature = min(max(sampling.temperature, _COLDEST), _HOTTEST)
        limit = sampling.top_k if 0 < sampling.top_k < vocab_size else None
        return cls(temperature, limit, sampling.top_p, uniform, noise)

    @property
    def is_free(self) -> bool:
        """Whether any id at all may be drawn."""
        return self.limit is None and self.top_p >= 1

    @property
    def is_cut(self) -> bool:
        """Whether something is drawn, and among the likeliest ids alone."""
        return self.temperature > 0 and not self.is_free

    def num_ranked(self, vocab_size: int) -> int:
        """How many of the likeliest ids it needs ranked at first: enough for all but a wide nucleus."""
        return 1 if self.is_free else self.limit or min(_NUCLEUS_CANDIDATES, vocab_size)


def choose(
    scores: torch.Tensor, ranked: Ranked, draws: Sequence[Draw], vocab_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one id for each row of `scores` `[rows, width]`, minus infinity from `vocab_size` on.

    Returns the ids, and whether each is settled, both `[rows, 1]`. A draw is not where it needs more than `ranked`,
    which holds as many ids as `num_ranked` says or more.
    """
    tokens = ranked.ids[:, :1].clone()
    settled = torch.ones_like(tokens, dtype=torch.bool)
    if raced := [i for i, draw in enumerate(draws) if draw.noise is not None]:
        for i in raced:
            one = slice(i, i + 1)
            some = Ranked(ranked.scores[one], ranked.ids[one])
            tokens[one], settled[one] = _race(scores[one], some, draws[i], vocab_size)
    if free := [i for i, draw in enumerate(draws) if draw.is_free and draw.noise is None]:
        rows = _rows(free, scores)
        temperature, uniform, _, _ = _columns([draws[i] for i in free], vocab_size, scores.device)
        tokens[rows] = _anywhere(_probabilities(scores[rows], ranked.scores[rows, :1], temperature), uniform)
    if cut := [i for i, draw in enumerate(draws) if draw.is_cut and draw.noise is None]:
        rows = _rows(cut, scores)
        some = Ranked(ranked.scores[rows], ranked.ids[rows])
        tokens[rows], settled[rows] = _among_likeliest(scores[rows], some, [draws[i] for i in cut], vocab_size)
    return tokens, settled


def _rows(places: Sequence[int], scores: torch.Tensor) -> slice | torch.Tensor:
    """What picks these rows; a slice, which copies nothing, for all of them."""
    return slice(None) if len(places) == len(scores) else to_device(np.array(places), scores.device)


def _columns(draws: Sequence[Draw], vocab_size: int, device: torch.device) -> torch.Tensor:
    """The rows' temperatures, uniforms, limits and top_ps as numbers, float64 `[4, rows, 1]`."""
    rows = [
        (draw.temperature, draw.uniform, draw.limit or vocab_size, draw.top_p if draw.top_p < 1 else math.inf)
        for draw in draws
    ]
    return to_device(np.array(rows, np.float64).T[:, :, None], device)


def _probabilities(scores: torch.Tensor, best: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    # Subtracting the maximum before dividing keeps a very small temperature from overflowing.
    return torch.softmax((scores - best).div_(temperature.float()), dim=-1)


def _race(
    scores: torch.Tensor, ranked: Ranked, draw: Draw, vocab_size: int
) -> tuple[torch.Tensor | int, torch.Tensor | bool]:
    """Draw for one row as `torch.multinomial` does: the largest of the probabilities by their exponential numbers."""
    if draw.noise is None:
        raise TypeError("only draws with noise are raced")
    noise = draw.noise.double().log()[None]
    if draw.is_free:
        return ((scores[:, : noise.shape[1]].double() / draw.temperature) - noise).argmax(-1, keepdim=True), True
    cumulative, limit, mass, _ = _prefixes(scores, ranked, [draw], vocab_size)
    count, ends_here = _nucleus_size(cumulative, limit, mass)
    reached = ranked.scores.double() / draw.temperature - noise.gather(-1, ranked.ids)
    reached[:, int(count) :] = -math.inf
    return ranked.ids.gather(-1, reached.argmax(-1, keepdim=True)), ends_here


def _among_likeliest(
    scores: torch.Tensor, ranked: Ranked, draws: Sequence[Draw], vocab_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    cumulative, limit, mass, uniform = _prefixes(scores, ranked, draws, vocab_size)
    place, settled = _nucleus_place(cumulative, limit, mass, uniform)
    return ranked.ids.gather(-1, place), settled


def _prefixes(
    scores: torch.Tensor, ranked: Ranked, draws: Sequence[Draw], vocab_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The ranked ids' cumulative weights, how many ids and what weight may be drawn from, and the rows' uniforms."""
    temperature, uniform, limit, top_p = _columns(draws, vocab_size, scores.device)
    best = ranked.scores[:, :1]
    cumulative = ((ranked.scores.double() - best) / temperature).exp_().cumsum(-1)
    whole = cumulative.gather(-1, limit.long().clamp_(max=cumulative.shape[1]) - 1)
    if nuclei := [i for i, draw in enumerate(draws) if draw.limit is None]:
        rows = _rows(nuclei, scores)
        # The likeliest id has weight 1 here.
        whole[rows] = 1 / _probabilities(scores[rows], best[rows], temperature[rows]).amax(-1, keepdim=True).double()
    return cumulative, limit, top_p * whole, uniform


def _nucleus_size(
    cumulative: torch.Tensor, limit: torch.Tensor, mass: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many places the smallest prefix has whose sum reaches `mass`, and whether it ends here."""
    width = cumulative.shape[1]
    before = pad(cumulative[:, :-1], (1, 0))
    kept = (before < mass) & (torch.arange(width, device=cumulative.device) < limit)
    count = kept.sum(-1, keepdim=True).clamp_(min=1)
    return count, (count < width) | (limit <= width)


def _nucleus_place(
    cumulative: torch.Tensor, limit: torch.Tensor, mass: torch.Tensor, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw from the smallest prefix of `cumulative` `[rows, k]` whose sum reaches `mass` (Holtzman et al. 2020).

    The prefix holds the first place at least, and at most `limit`. Returns the place drawn, and whether it is settled.
    """
    count, ends_here = _nucleus_size(cumulative, limit, mass)
    before = pad(cumulative[:, :-1], (1, 0))
    total = cumulative.gather(-1, count - 1)
    # A prefix that ends later weighs at least `mass`, and more by less than the last weight here. Where both lead to
    # the same place, its end need not be known.
    most = torch.where(ends_here, total, mass + (cumulative - before)[:, -1:])
    place = _invert(cumulative, total, torch.where(ends_here, total, mass) * uniform)
    same = (place == _invert(cumulative, total, most * uniform)) & (most * uniform < cumulative[:, -1:])
    return place, ends_here | same


def _anywhere(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw from `probabilities` `[rows, width]` of all ids, in two steps: a block of ids, then one in it.

    Sums are float64, in which even the rarest of a large vocabulary is drawn as often as it should.
    """
    sums = probabilities.view(len(probabilities), -1, BLOCK).sum(-1).double()
    cumulative = sums.cumsum(-1)
    total = cumulative[:, -1:]
    block = _invert(cumulative, total, total * uniform)
    ids = block * BLOCK + torch.arange(BLOCK, device=block.device)
    within = probabilities.gather(-1, ids).double().cumsum(-1)
    # Rounding may leave a little less than nothing, at which an id of probability 0 would be found.
    left = (total * uniform - (cumulative - sums).gather(-1, block)).clamp_(min=0)
    return ids.gather(-1, _invert(within, within[:, -1:], left))


def _invert(cumulative: torch.Tensor, total: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the first place of each row `[rows, 1]` whose cumulative weight exceeds `target`.

    At most the last place of any weight among those that make up `total`, so never one of weight 0.
    """
    found = (cumulative <= target).sum(-1, keepdim=True)
    return torch.minimum(found, (cumulative < total).sum(-1, keepdim=True))
