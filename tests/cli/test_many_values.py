"""Options that take several values at once."""

import pytest

from cogsmith.cli.many_values import decided, spread


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


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("E --sample False --prompts a", "E --no-sample --prompts a"),
        ("--sample true --sample=FALSE E", "--sample --no-sample E"),
        ("--sample E", "--sample E"),
        ("--sample", "--sample"),
        ("--other false --sample=maybe", "--other false --sample=maybe"),
    ],
)
def test_a_flag_may_say_yes_or_no_by_a_word(given, meant):
    assert list(decided(given.split(), {"--sample": {"true": "--sample", "false": "--no-sample"}})) == meant.split()
