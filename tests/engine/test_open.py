"""What a bare checkpoint folder is served as, by what lies in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers.models.auto import modeling_auto

from cogsmith.engine.open import task_of


def test_every_causal_language_model_of_transformers_is_served_as_one(tmp_path: Path):
    for name in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        if not name.endswith(("ForCausalLM", "LMHeadModel")):
            continue
        (tmp_path / "config.json").write_text(json.dumps({"architectures": [name]}))
        assert task_of(tmp_path) == "causal-lm", name


@pytest.mark.parametrize("name", ["BertModel", "GPT2Model", "BertForMaskedLM", "T5EncoderModel"])
def test_a_model_without_a_language_models_head_gives_vectors(tmp_path: Path, name: str):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [name]}))
    assert task_of(tmp_path) == "encoder"
