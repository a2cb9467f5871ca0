"""`./build --demo` from its first line to its last, on the real SmolLM2, checked against plain transformers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
DIGITS = "0123456789"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("smollm2")]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    shutil.copy(ROOT / "config.toml.example", root)
    return root


@pytest.fixture(scope="module")
def output(project, smollm2_cache):
    """What the demo prints on stdout."""
    command = [sys.executable, "-m", "cogsmith.cli.main", "build", "--demo"]
    env = {**os.environ, "COGSMITH_CACHE": str(smollm2_cache)}
    result = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def rows(output, number):
    """(name, log-probability) of each row under headline `number`."""
    section = re.search(rf"\n{number}\. .*?(?=\n\n)", output + "\n\n", re.DOTALL).group()
    return [(name, float(value)) for name, value in re.findall(r"^  '(.*?)' +(-\d+\.\d+)", section, re.MULTILINE)]


@pytest.fixture(scope="module")
def truth(project, output):
    """The checkpoint the demo built, loaded by plain transformers: text -> log-probabilities of the next token."""
    folder = project / "work/smollm2-135m/checkpoints"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    @torch.no_grad()
    def logits(ids):
        return model(torch.tensor([ids])).logits[0, -1]

    return tokenizer, logits


def test_the_free_generation_is_plain_greedy(output, truth):
    tokenizer, logits = truth
    ids = tokenizer.encode("Once upon a time, there was a")
    generated = rows(output, 3)
    assert len(generated) == 12
    for name, value in generated:
        logprobs = torch.log_softmax(logits(ids), -1)
        token = logprobs.argmax().item()
        assert (name, value) == (tokenizer.decode([token]), pytest.approx(logprobs[token].item(), abs=2e-4))
        ids.append(token)


def test_the_masked_generation_is_plain_greedy_over_digits(output, truth):
    tokenizer, logits = truth
    mask = torch.zeros(len(tokenizer))
    mask[tokenizer.encode(DIGITS)] = 100.0
    ids = tokenizer.encode("World War II ended in the year ")
    generated = rows(output, 4)
    for name, value in generated:
        logprobs = torch.log_softmax(logits(ids) + mask, -1)
        token = logprobs.argmax().item()
        assert (name, value) == (tokenizer.decode([token]), pytest.approx(logprobs[token].item(), abs=2e-4))
        ids.append(token)
    assert "".join(name for name, _ in generated) == "1945"


def test_the_scores_are_those_of_the_options(output, truth):
    tokenizer, logits = truth
    logprobs = torch.log_softmax(logits(tokenizer.encode("The opposite of hot is")), -1)
    scored = rows(output, 5)
    assert [name for name, _ in scored] == [" cold", " warm", " blue"]
    for name, value in scored:
        (token,) = tokenizer.encode(name)
        assert value == pytest.approx(logprobs[token].item(), abs=2e-4)


def test_it_says_what_to_do_next(output):
    assert "cogsmith predict smollm2-135m" in output
    assert "cp config.toml.example config.toml" in output
