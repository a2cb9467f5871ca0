"""A kind of model that transformers does not have is refused while building, before anything is fetched."""

from __future__ import annotations

import subprocess
import sys

import pytest
import transformers

from cogsmith.config.model import Model
from cogsmith.errors import ProblemsError, SourceError, UserError
from cogsmith.sources.base import Resolved
from cogsmith.workdir import architectures


def resolved(kind: object, format: str = "hf") -> Resolved:
    return Resolved("hf:a/b", "c", format, (), 1, shape={"model_type": kind})


def refusal(kind: object, **settings: object) -> SourceError:
    with pytest.raises(SourceError) as raised:
        architectures.require_known(Model("m", "hf:a/b", **settings), resolved(kind))
    return raised.value


@pytest.mark.slow
def test_the_list_is_that_of_the_transformers_in_containers():
    # In a process of its own: here other tests may have taught transformers more.
    command = [sys.executable, "-m", "cogsmith.workdir.architectures"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert architectures._FILE.read_text() == printed, (
        "run: python -m cogsmith.workdir.architectures > src/cogsmith/workdir/architectures.json"
    )


def test_another_kind_is_refused_with_the_list():
    error = refusal("lama")
    assert error.message == (
        f"config.json has model_type 'lama', and transformers {transformers.__version__} has no such model to "
        "continue text"
    )
    assert error.fix is not None
    assert error.fix.startswith(
        "did you mean 'llama'? else give its code: code.path, code.model_type, …; supported are"
    )
    assert error.fix.endswith(", ".join(architectures.known("causal-lm")))


@pytest.mark.parametrize(
    ("kind", "settings", "advice"),
    [
        ("llava", {}, "write task = 'image-text';"),
        ("albert", {}, "write task = 'encoder' or 'decoder';"),
        ("llama", {"task": "image-text"}, "write task = 'causal-lm' or 'encoder' or 'decoder';"),
        ("vit", {"task": "encoder"}, "did you mean"),
        ("0", {}, "give its code: code.path"),
    ],
)
def test_what_to_do_instead(kind, settings, advice):
    assert str(refusal(kind, **settings).fix).startswith(advice)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (Model("m", "hf:a/b", engine="vllm"), resolved("own")),
        (Model("m", "hf:a/b", requirements=("transformers==5.24.0",)), resolved("own")),
        (Model("m", "hf:a/b"), resolved("mosaic_gpt", "composer")),
        (Model("m", "hf:a/b"), resolved(None)),
        (Model("m", "hf:a/b"), Resolved("hf:a/b", "c", "hf", (), 1)),
        (Model("m", "hf:a/b", task="encoder"), resolved("roberta")),
    ],
)
def test_what_is_passed_over(model, found):
    architectures.require_known(model, found)


def test_a_classifier_is_no_language_model():
    shape = {"model_type": "bert", "architectures": ["BertForTokenClassification"]}
    found = Resolved("hf:a/b", "c", "hf", (), 1, shape=shape)
    with pytest.raises(UserError, match="hf:a/b is a BertForTokenClassification, which labels the words"):
        architectures.require_known(Model("m", "hf:a/b"), found)
    architectures.require_known(Model("m", "hf:a/b", task="encoder"), found)


def test_a_build_refuses_it_together_with_other_problems(workshop, monkeypatch):
    for name in ("one", "two"):
        source = workshop.add(name)
        monkeypatch.setattr(source, "resolve", lambda name=name: resolved(f"{name}-kind"))
    with pytest.raises(ProblemsError, match=r"(?s)'one-kind'.*'two-kind'"):
        workshop.build()
    assert not (workshop.root / "work").exists()
