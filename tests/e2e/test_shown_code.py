"""The programs that the README and the pages show, run as they stand, against plain transformers."""

import ast
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import gateway as gateways

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("smollm2")]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(smollm2, tmp_path_factory):
    """Runs a page's first program that calls `connect`; returns what it prints."""
    root = tmp_path_factory.mktemp("shown")
    with gateways.running(smollm2, log=root / "log") as gateway:
        variables = {
            **os.environ,
            "REPLICATE_BASE_URL": gateway.url,
            "REPLICATE_API_TOKEN": "any",
            "COGSMITH_CACHE": str(root / "cache"),
        }

        def run(page):
            blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
            code = next(block for block in blocks if "cogsmith.connect" in block)
            command = [sys.executable, "-c", code]
            return subprocess.run(
                command, env=variables, capture_output=True, text=True, timeout=120, check=True
            ).stdout

        yield run


def ids_of(plain, text):
    return plain.tokenizer(text).input_ids


def story(plain):
    """What `text("Once upon a time", max_tokens=40, stop="\\n")` shows."""
    return plain.decode(plain.greedy(ids_of(plain, "Once upon a time"), 40, stop="\n")).partition("\n")[0]


def distribution(plain):
    scores = [
        sum(plain.score(ids_of(plain, "The opposite of hot is"), plain.encode(option)))
        for option in (" cold", " warm", " blue")
    ]
    return [math.exp(score) / sum(map(math.exp, scores)) for score in scores]


def likelier(plain, prompt, options):
    """The one of `options`, each a single token, that the model would rather go on with."""
    (scores,) = zip(*(plain.score(ids_of(plain, prompt), plain.encode(option)) for option in options), strict=True)
    return options[scores.index(max(scores))]


def test_the_readmes_program(run, plain_smollm2):
    shown = story(plain_smollm2)
    output = run("README.md")
    assert output.startswith(shown)
    *tokens, probabilities, chosen = output.removeprefix(shown).splitlines()
    digits = plain_smollm2.greedy(
        ids_of(plain_smollm2, "World War II ended in the year "), 4, allowed=lambda text: range(32, 42)
    )
    assert [int(line.split()[0]) for line in tokens] == digits
    assert ast.literal_eval(probabilities) == pytest.approx(distribution(plain_smollm2), abs=1e-4)
    assert chosen == likelier(plain_smollm2, "Is snow black? The answer is", (" yes", " no"))


def test_the_clients_page(run, plain_smollm2):
    shown = story(plain_smollm2)
    output = run("docs/8-client.md")
    assert output.startswith(shown)
    assert ast.literal_eval(output.removeprefix(shown)) == pytest.approx(distribution(plain_smollm2), abs=1e-4)
