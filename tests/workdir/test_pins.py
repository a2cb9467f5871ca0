"""requirements.txt comes from pyproject.toml and the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

from cogsmith.config.model import Model
from cogsmith.quant import Quant
from cogsmith.workdir import pins

PROJECT = tomli.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
VLLM = {line.partition("==")[0]: line for line in PROJECT["optional-dependencies"]["vllm"]}
OTHERS = [lines for extra, lines in PROJECT["optional-dependencies"].items() if not extra.startswith("vllm")]
PINNED = {line.partition("==")[0]: line for lines in (PROJECT["dependencies"], *OTHERS) for line in lines}
ALWAYS = [
    "accelerate",
    "jinja2",
    "llguidance",
    "msgspec",
    "numpy",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
]


def of(**settings: object) -> tuple[str, ...]:
    return pins.requirements(Model("tiny", "hf:org/repo", **settings))


def test_pins_are_those_of_pyproject():
    assert of() == tuple(PINNED[name] for name in ALWAYS)
    assert pins.sdk_version() == PINNED["cog"].removeprefix("cog==")


@pytest.mark.parametrize(
    ("settings", "shape", "needed"),
    [
        ({"quant": Quant(bits=4)}, None, True),
        ({"quant": Quant(bits=8, at="load")}, {}, True),
        ({"model_args": {"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}}}, None, True),
        ({}, {"quantization_config": {"load_in_8bit": True, "quant_method": "bitsandbytes"}}, True),
        ({}, {"quantization_config": {"bits": 4, "quant_method": "gptq"}}, False),
        ({"model_args": {"dtype": "bfloat16"}}, {"model_type": "llama"}, False),
    ],
)
def test_bitsandbytes_is_there_where_weights_are_quantised_or_come_so(settings, shape, needed):
    lines = pins.requirements(Model("tiny", "hf:org/repo", **settings), shape)
    assert (PINNED["bitsandbytes"] in lines) == needed


@pytest.mark.parametrize(
    ("shape", "packages"),
    [
        ({"model_type": "gemma3"}, {"pillow"}),
        ({"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}}, {"pillow"}),
        ({"model_type": "smolvlm"}, {"pillow", "num2words"}),
        ({"model_type": "llava", "vision_config": {"model_type": "pixtral"}}, {"pillow", "torchvision"}),
        *(({"model_type": kind}, {"pillow", "torchvision"}) for kind in ("mistral3", "llama4", "lfm2_vl")),
    ],
)
def test_what_a_familys_processor_imports_is_there(shape, packages):
    lines = pins.requirements(Model("tiny", "hf:org/repo", task="image-text"), shape)
    assert set(lines) - set(of()) == {PINNED[name] for name in packages}
    assert pins.requirements(Model("tiny", "hf:org/repo"), shape) == of()


def test_vllm_comes_with_the_transformers_that_it_is_for():
    lines = of(engine="vllm")
    assert {VLLM["vllm"], VLLM["torch"], VLLM["transformers"], PINNED["msgspec"]} <= set(lines)
    assert VLLM["transformers"] != PINNED["transformers"]
    assert PINNED["transformers"] not in lines
    assert PINNED["accelerate"] not in lines


def test_the_models_own_requirements_win():
    lines = of(requirements=("Torch==2.12.0", "einops==0.8.1"))
    assert "Torch==2.12.0" in lines
    assert PINNED["torch"] not in lines
    assert "einops==0.8.1" in lines
    assert lines == tuple(sorted(lines, key=str.lower))
