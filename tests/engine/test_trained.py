"""What sentence-transformers wrote beside a model's weights."""

import json

import pytest

from cogsmith.engine.trained import Trained, read


def folder_of(root, *kinds, prefix="sentence_transformers.models.", pooling=None, bert=None):
    steps = [{"idx": i, "path": f"{i}_{kind}" if i else "", "type": prefix + kind} for i, kind in enumerate(kinds)]
    (root / "modules.json").write_text(json.dumps(steps))
    if pooling is not None:
        (root / "1_Pooling").mkdir()
        (root / "1_Pooling/config.json").write_text(json.dumps(pooling))
    if bert is not None:
        (root / "sentence_bert_config.json").write_text(json.dumps(bert))
    return root


def test_a_folder_that_says_nothing(tmp_path):
    assert read(tmp_path, "last") == Trained("last")


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({}, "mean"),
    ],
)
def test_ways_of_pooling(tmp_path, config, pooling):
    said = read(folder_of(tmp_path, "Transformer", "Pooling", pooling=config), "none")
    assert (said.pooling, said.normalize, said.unknown) == (pooling, False, None)


@pytest.mark.parametrize("prefix", ["sentence_transformers.models.", "sentence_transformers.sentence_transformer.x."])
def test_normalising_length_and_case(tmp_path, prefix):
    folder = folder_of(
        tmp_path,
        *("Transformer", "Pooling", "Normalize"),
        prefix=prefix,
        pooling={"pooling_mode_cls_token": True},
        bert={"max_seq_length": 256, "do_lower_case": True},
    )
    assert read(folder, "mean") == Trained("cls", normalize=True, max_length=256, lowercase=True, is_stated=True)


@pytest.mark.parametrize(
    ("kinds", "config", "unknown"),
    [
        (("Transformer", "Pooling"), {"pooling_mode_weightedmean_tokens": True}, "weightedmean pooling"),
        (
            ("Transformer", "Pooling"),
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "cls+mean pooling",
        ),
        (("Transformer", "Pooling", "Dense"), {"pooling_mode_mean_tokens": True}, "a Dense layer"),
    ],
)
def test_ways_that_are_not_here_are_named_and_never_replaced(tmp_path, kinds, config, unknown):
    said = read(folder_of(tmp_path, *kinds, pooling=config), "mean")
    assert (said.pooling, said.unknown) == (None, unknown)
