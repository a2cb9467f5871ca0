"""Rows for the sampler, without an engine."""

import numpy as np
import torch

from cogsmith.engine.base import EngineInfo
from cogsmith.engine.request import GenerateRequest, Sampling
from cogsmith.engine.rules import RuleBook
from cogsmith.engine.sampler import sample
from cogsmith.engine.sequence import Sequence

VOCAB = 50


def book(head=VOCAB, vocab=None, eos=frozenset()):
    return RuleBook(EngineInfo("tiny", "transformers", head, vocab or head, 64, eos, None, 1, 1, 1, "float32", "cpu"))


def logits(rows=1, seed=0):
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def sequence(
    prompt=(1, 2, 3), *, generated=(), bias=None, top_logprobs=1, allow=None, logprob_ids=(), size=VOCAB, **sampling
):
    settings = {"bias": bias or {}, "top_logprobs": top_logprobs, "allow": allow, "logprob_ids": logprob_ids}
    request = GenerateRequest(tuple(prompt), 10, Sampling(**sampling), **settings)
    made = Sequence.of(request, lambda events: None, rules=book(size).of(request))
    for token in generated:
        made.append(token)
    return made


def one(scores, **settings):
    return sample(scores.clone(), [sequence(**settings)], VOCAB)[0]


class Allows:
    """A constraint that allows the same ids at each step."""

    def __init__(self, *ids, size=VOCAB):
        self._bits = np.packbits(np.isin(np.arange(size), ids), bitorder="little")

    def allowed(self):
        return self._bits


def constrained(constraint, **settings):
    row = sequence(**settings)
    row.constraint = constraint
    return row
