"""requirements.txt comes from pyproject.toml and the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

from cogsmith.config.model import Model
from cogsmith.workdir import pins

PROJECT = tomli.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
PINNED = {
    line.partition("==")[0]: line
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
}
ALWAYS = ["accelerate", "jinja2", "msgspec", "numpy", "safetensors", "tokenizers", "torch", "transformers"]


def of(**settings: object) -> tuple[str, ...]:
    return pins.requirements(Model("tiny", "hf:org/repo", **settings))


def test_pins_are_those_of_pyproject():
    assert of() == tuple(PINNED[name] for name in ALWAYS)
    assert pins.sdk_version() == PINNED["cog"].removeprefix("cog==")


@pytest.mark.parametrize(
    ("model_args", "bits"),
    [
        ({"load_in_4bit": True}, 4),
        ({"load_in_8bit": True}, 8),
        ({"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}}, 4),
        ({"load_in_4bit": False}, None),
        ({"dtype": "bfloat16"}, None),
    ],
)
def test_quantised_models_need_bitsandbytes(model_args, bits):
    assert pins.quantised_bits(model_args) == bits
    assert (PINNED["bitsandbytes"] in of(model_args=model_args)) == (bits is not None)


def test_the_models_own_requirements_win():
    lines = of(requirements=("Torch==2.12.0", "einops==0.8.1"))
    assert "Torch==2.12.0" in lines
    assert PINNED["torch"] not in lines
    assert "einops==0.8.1" in lines
    assert lines == tuple(sorted(lines, key=str.lower))
