"""[defaults] and the models that they are for."""

from __future__ import annotations

from cogsmith.config import load
from cogsmith.manifest import Limits
from cogsmith.quant import Quant


def test_defaults_are_merged_key_by_key_and_the_model_wins(write):
    text = """\
    [defaults]
    output_precision = "fp16"
    requirements = ["a==1", "b==2"]
    limits = {max_queue = 5, timeout_seconds = 60}
    config = {device_map = "auto", nested = {x = 1, y = 2}}
    [models.plain]
    source = "hf:acme/m"
    [models.own]
    source = "hf:acme/m"
    output_precision = "bf16"
    requirements = ["c==3"]
    limits.max_queue = 7
    config.nested.y = 3
    """

    models = load(write(text)).models

    assert models["plain"].output_precision == "fp16"
    assert models["plain"].requirements == ("a==1", "b==2")
    assert models["plain"].limits == Limits(max_queue=5, timeout_seconds=60)
    assert models["plain"].model_args == {"device_map": "auto", "nested": {"x": 1, "y": 2}}
    assert models["own"].output_precision == "bf16"
    assert models["own"].requirements == ("c==3",)
    assert models["own"].limits == Limits(max_queue=7, timeout_seconds=60)
    assert models["own"].model_args == {"device_map": "auto", "nested": {"x": 1, "y": 3}}


def test_a_model_that_names_weights_ignores_those_of_defaults(write):
    text = """\
    [defaults]
    huggingface = {repo = "acme/base", version = "v1"}
    [models.base]
    [models.other]
    source = "pypi:weights==1"
    [models.mine]
    huggingface.repo = "acme/mine"
    [models.newer]
    huggingface.version = "v2"
    """

    models = load(write(text)).models

    assert (models["base"].source, models["base"].revision) == ("hf:acme/base", "v1")
    assert (models["other"].source, models["other"].revision) == ("pypi:weights==1", None)
    assert (models["mine"].source, models["mine"].revision) == ("hf:acme/mine", None)
    assert (models["newer"].source, models["newer"].revision) == ("hf:acme/base", "v2")


def test_a_repository_replaces_the_source_of_defaults_and_keeps_a_bare_version(write):
    text = """\
    [defaults]
    source = "pypi:weights==1"
    huggingface.version = "dev"
    [models.m]
    huggingface.repo = "acme/m"
    """

    model = load(write(text)).models["m"]

    assert (model.source, model.revision) == ("hf:acme/m", "dev")


def test_a_default_may_be_switched_off_to_end_a_contradiction(write):
    text = """\
    [defaults.config]
    load_in_4bit = true
    [models.m]
    source = "hf:a/b"
    config = {load_in_4bit = false, load_in_8bit = true}
    """

    model = load(write(text)).models["m"]
    assert (model.model_args, model.quant) == ({}, Quant(bits=8))
