"""What the comparison's table says of given numbers."""

from engines.rows import Figure
from engines.table import Results, markdown

RATE = Figure("tokens/s", lambda measured: 0.0, is_rate=True)
TIME = Figure("wait, ms", lambda measured: 0.0)


def cells(results, figure):
    lines = markdown(results, [figure], ["ours", "generate"]).splitlines()
    return [cell.strip() for cell in lines[2].strip("|").split("|")]


def test_a_factor_below_one_is_slower_for_rates_and_for_times():
    results = Results()
    for name, rate, time in (("ours", 100.0, 20.0), ("generate", 25.0, 40.0)):
        results.add(RATE, name, rate)
        results.add(TIME, name, time)
    assert cells(results, RATE) == ["tokens/s", "100", "25 (0.25)"]
    assert cells(results, TIME) == ["wait, ms", "20", "40 (0.5)"]


def test_a_cell_is_the_median():
    results = Results()
    for value in (1.0, 900.0, 3.0):
        results.add(TIME, "ours", value)
    assert cells(results, TIME)[1] == "3"


def test_what_failed_once_has_no_number_and_a_reason():
    results = Results()
    results.add(RATE, "ours", 100.0)
    results.add(RATE, "generate", 100.0)
    results.lack(RATE, "generate", "it ran out of memory")
    assert cells(results, RATE)[2] == "— [1]"
    assert "1. it ran out of memory" in markdown(results, [RATE], ["ours", "generate"])
