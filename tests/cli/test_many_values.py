"""Options that take several values at once."""

import pytest

from cogsmith.cli.many_values import spread


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("E --prompts a b c", "E --prompts a --prompts b --prompts c"),
        ("E --prompts a b --seed 1 --stop x y", "E --prompts a --prompts b --seed 1 --stop x --stop y"),
        ("--prompts=a b E2", "--prompts=a --prompts b --prompts E2"),
        ("--prompts -5 -6", "--prompts -5 -6"),
        ("--prompts a --stream b", "--prompts a --stream b"),
        ("--prompts a -", "--prompts a --prompts -"),
        ("--prompts a -- b", "--prompts a -- b"),
        ("E --seed 1 2", "E --seed 1 2"),
        ("", ""),
    ],
)
def test_each_further_value_gets_the_options_name(given, meant):
    assert list(spread(given.split(), {"--prompts", "--stop"})) == meant.split()
