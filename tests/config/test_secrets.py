"""Access tokens in the file: refused wherever they stand, and never in a message."""

from __future__ import annotations

import pytest

from cogsmith.config import load
from cogsmith.config.findings import Finding, problems
from cogsmith.config.positions import scan
from cogsmith.errors import ConfigError

HUB_TOKEN = "hf_" + "Ab1" * 11 + "x"
REPLICATE_TOKEN = "r8_" + "Ab1" * 12 + "x"

MODEL = "[models.m]\nsource = 'hf:a/b'\n"


@pytest.mark.parametrize("token", [HUB_TOKEN, REPLICATE_TOKEN])
@pytest.mark.parametrize(
    "text",
    [
        MODEL + "config.token = 'TOKEN'",
        MODEL + "config.deep = [{x = ['Bearer TOKEN']}]",
        MODEL + "requirements = ['TOKEN==1']",
        MODEL + "TOKEN = 1",
        MODEL + "config.TOKEN = 1",
        "[models.m]\nsource = 'TOKEN'",
        f"[models.m]\nsource = './{'x' * 60}/TOKEN'",
        "[models.m]\nsource = 'hf:a/TOKEN@TOKEN'",
        "[models.m]\nhuggingface.repo = 'TOKEN'",
        "[models.m]\nsource = 'hf:a/b'\nhuggingface.repo = 'https://huggingface.co/a/TOKEN'",
        f"[models.m]\nsource = 'hf:a/b'\nhuggingface.repo = '{'x' * 60}/TOKEN'",
        MODEL + "huggingface.version = 'a TOKEN'",
        "[models.TOKEN]\nsource = 'hf:a/b'\nTOKEN.x = 1",
        "[defaults]\nconfig.token = 'TOKEN'\n" + MODEL,
        "dest_prefix = 'TOKEN'\n" + MODEL,
        "TOKEN = 'x'\n" + MODEL,
    ],
)
def test_a_token_is_refused_and_never_echoed(write, text, token):
    with pytest.raises(ConfigError) as raised:
        load(write(text.replace("TOKEN", token)))

    report = str(raised.value)
    assert "this looks like an access token" in report
    assert "HF_TOKEN" in report
    assert token[3:13] not in report
    assert token[3:13].lower() not in report


def test_a_token_in_a_text_that_is_not_toml_is_not_echoed(write):
    with pytest.raises(ConfigError) as raised:
        load(write(f"[a.{HUB_TOKEN}]\n[a.{HUB_TOKEN}]\nx = '{HUB_TOKEN}'"))

    assert raised.value.problems[0].line == 2
    assert HUB_TOKEN not in str(raised.value)


def test_whatever_a_check_says_no_token_leaves():
    (problem,) = problems([Finding((HUB_TOKEN,), f"no {HUB_TOKEN}", f"write {HUB_TOKEN}")], scan(""))

    assert (problem.where, problem.message, problem.fix) == ("hf_…", "no hf_…", "write hf_…")


@pytest.mark.parametrize("harmless", ["hf_transformers", "hf-internal-testing/tiny", "r8_", "xhf_" + "a" * 34])
def test_what_only_resembles_a_token_is_taken(problems_of, harmless):
    assert problems_of(MODEL + f"config.x = '{harmless}'") == ()
