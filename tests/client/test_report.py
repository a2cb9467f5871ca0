"""The latency report's figures, against numbers from a run of the script that they are named after."""

from __future__ import annotations

import json

import pytest

from cogsmith.client.report import Report, without_padding


def report(**changed):
    known = {
        "input_tokens": (11, 14),
        "output_tokens": (405, 404),
        "encode_latency": 9.56,
        "gen_latency": 2759.03,
        "decode_latency": 1.72,
        "time_to_first_token": 40.25,
        "n_params": 124439808,
        "generate_kwargs": {"max_new_tokens": 405, "temperature": 1.0},
    }
    return Report(**known | changed)


def test_the_figures_of_a_known_run():
    """809 tokens in 2770.31 ms: 3.42 ms each, 292.03 in a second."""
    facts = report().facts()
    assert facts["total_latency"] == pytest.approx(2770.31, abs=1e-9)
    assert facts["total_output_tokens"] == 809
    assert round(facts["latency_per_output_token"], 2) == 3.42
    assert round(facts["output_tok_per_sec"], 2) == 292.03
    assert facts["latency_per_output_token"] * facts["output_tok_per_sec"] == pytest.approx(1000)


def test_the_total_is_exactly_the_sum_of_its_parts():
    facts = report(encode_latency=0.1, gen_latency=0.2, decode_latency=0.4).facts()
    assert facts["total_latency"] == 0.1 + 0.2 + 0.4


def test_rows_are_counted_one_by_one_and_together():
    facts = report(input_tokens=[3, 3, 7], output_tokens=[5, 0, 2]).facts()
    assert facts["bs"] == 3
    assert (facts["input_tokens"], facts["output_tokens"]) == ([3, 3, 7], [5, 0, 2])
    assert (facts["total_input_tokens"], facts["total_output_tokens"]) == (13, 7)


def test_no_token_at_all_is_counted_as_one_in_the_rates_only():
    facts = report(output_tokens=[0, 0], encode_latency=1.0, gen_latency=6.0, decode_latency=1.0).facts()
    assert facts["total_output_tokens"] == 0
    assert facts["latency_per_output_token"] == 8.0
    assert facts["output_tok_per_sec"] == 125.0


def test_the_lines_for_a_person():
    assert report().lines() == [
        "n_params=124439808",
        "Generate kwargs: {'max_new_tokens': 405, 'temperature': 1.0}",
        "bs=2, input_tokens=[11, 14], output_tokens=[405, 404]",
        "total_input_tokens=25, total_output_tokens=809",
        "encode_latency=9.56ms, gen_latency=2759.03ms, decode_latency=1.72ms, total_latency=2770.31ms",
        "time_to_first_token=40.25ms",
        "latency_per_output_token=3.42ms/tok",
        "output_tok_per_sec=292.03tok/sec",
    ]


def test_the_memory_footprint_is_told_as_transformers_examples_do():
    assert report(memory_footprint=16060522496).lines()[-1] == "Memory footprint: 16,060.5 MB"
    assert report(memory_footprint=7).facts()["memory_footprint"] == 7


def test_what_is_not_known_is_said_so():
    unknown = report(n_params=None, time_to_first_token=None)
    assert unknown.lines()[0] == "n_params=None"
    assert "time_to_first_token=none" in unknown.lines()
    facts = json.loads(json.dumps(unknown.facts()))
    assert (facts["n_params"], facts["time_to_first_token"]) == (None, None)


@pytest.mark.parametrize(
    ("ids", "pad_id", "count"),
    [
        ((5, 6, 2), 0, 3),  # a padding token of its own: the end token 2 counts
        ((5, 6, 2), 2, 2),  # padded with the end token: it does not
        ((2, 5, 2, 2), 2, 1),
        ((5, 6, 2), None, 3),
        ((), 2, 0),
    ],
)
def test_padding_is_not_counted(ids, pad_id, count):
    assert without_padding(ids, pad_id) == count
