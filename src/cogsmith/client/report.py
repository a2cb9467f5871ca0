"""How long a generation took: counts and times in, figures out.

The figures and their names are those of MosaicML's text generation script (`hf_generate` in LLM Foundry), seen from
the caller's side: what goes over a network is part of `gen_latency`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of one batch of generations. Times are in milliseconds.

    A row is one continuation: a prompt that is continued `n` times makes `n` rows and counts in each.
    """

    input_tokens: Sequence[int]
    """Tokens of each row's prompt."""
    output_tokens: Sequence[int]
    """Tokens of each row's continuation, as `without_padding` counts them."""
    encode_latency: float
    """Text to ids."""
    gen_latency: float
    """From the request to the last token of the last row."""
    decode_latency: float
    """Ids to text."""
    time_to_first_token: float | None
    """From the request to the first token of any row; None where there was none. A part of `gen_latency`."""
    n_params: int | None
    """The model's parameters, where the server says how many."""
    memory_footprint: int | None = None
    """What transformers' `get_memory_footprint` says of the model, in bytes, where the server tells it."""
    generate_kwargs: Mapping[str, Any]
    """What the rows were generated with."""

    @property
    def bs(self) -> int:
        """The batch size: how many rows there were."""
        return len(self.output_tokens)

    @property
    def total_latency(self) -> float:
        """The sum of the three parts."""
        return self.encode_latency + self.gen_latency + self.decode_latency

    @property
    def latency_per_output_token(self) -> float:
        """`total_latency` by the tokens of all rows; by one, where there are none."""
        return self.total_latency / max(sum(self.output_tokens), 1)

    @property
    def output_tok_per_sec(self) -> float:
        """Tokens of all rows in a second: 1000 ms by `latency_per_output_token`."""
        return 1000.0 / self.latency_per_output_token

    def facts(self) -> dict[str, Any]:
        """Return every figure by its name, in JSON's types."""
        return {
            "n_params": self.n_params,
            "memory_footprint": self.memory_footprint,
            "generate_kwargs": dict(self.generate_kwargs),
            "bs": self.bs,
            "input_tokens": list(self.input_tokens),
            "output_tokens": list(self.output_tokens),
            "total_input_tokens": sum(self.input_tokens),
            "total_output_tokens": sum(self.output_tokens),
            "encode_latency": self.encode_latency,
            "gen_latency": self.gen_latency,
            "decode_latency": self.decode_latency,
            "total_latency": self.total_latency,
            "time_to_first_token": self.time_to_first_token,
            "latency_per_output_token": self.latency_per_output_token,
            "output_tok_per_sec": self.output_tok_per_sec,
        }

    def lines(self) -> list[str]:
        """Return the figures for a person, a line for each kind."""
        first = "none" if self.time_to_first_token is None else f"{self.time_to_first_token:.2f}ms"
        size = self.memory_footprint
        return [
            f"n_params={self.n_params}",
            f"Generate kwargs: {dict(self.generate_kwargs)}",
            f"bs={self.bs}, input_tokens={list(self.input_tokens)}, output_tokens={list(self.output_tokens)}",
            f"total_input_tokens={sum(self.input_tokens)}, total_output_tokens={sum(self.output_tokens)}",
            f"encode_latency={self.encode_latency:.2f}ms, gen_latency={self.gen_latency:.2f}ms, "
            f"decode_latency={self.decode_latency:.2f}ms, total_latency={self.total_latency:.2f}ms",
            f"time_to_first_token={first}",
            f"latency_per_output_token={self.latency_per_output_token:.2f}ms/tok",
            f"output_tok_per_sec={self.output_tok_per_sec:.2f}tok/sec",
            *([] if size is None else [f"Memory footprint: {size / 1e6:,.1f} MB"]),
        ]


def without_padding(ids: Sequence[int], pad_id: int | None) -> int:
    """Count the ids that are no padding.

    A model without a padding token is padded with its end token: pass that, and an end token is not counted.
    """
    return sum(id_ != pad_id for id_ in ids)
