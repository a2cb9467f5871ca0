"""Which files make a checkpoint."""

from __future__ import annotations

import pytest

from cogsmith.errors import SourceError
from cogsmith.sources.base import SourceFile
from cogsmith.sources.selection import select

SAFE_INDEX, PICKLE_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"


def chosen(*paths: str, index: object = None, allow_pickle: bool = False) -> set[str]:
    files = [SourceFile(path, 1) for path in ("config.json", *paths)]
    return {file.path for file in select(files, "hf:o/m", lambda _: index, allow_pickle=allow_pickle)} - {"config.json"}


def weight_map(*shards: str) -> dict[str, object]:
    return {"weight_map": {f"layer.{number}": shard for number, shard in enumerate(shards)}}


def test_one_file_is_preferred_to_shards_as_from_pretrained_does():
    found = chosen("model.safetensors", SAFE_INDEX, "a.safetensors", index=weight_map("a.safetensors"))
    assert found == {"model.safetensors"}


def test_safetensors_are_preferred_to_pickle_even_where_pickle_is_allowed():
    assert chosen("model.safetensors", "pytorch_model.bin", allow_pickle=True) == {"model.safetensors"}


def test_pickle_needs_permission():
    with pytest.raises(SourceError, match=r"pickle only \(pytorch_model\.bin\)") as caught:
        chosen("pytorch_model.bin")
    assert "allow_pickle = true" in str(caught.value.fix)
    assert chosen("pytorch_model.bin", "training_args.bin", allow_pickle=True) == {"pytorch_model.bin"}


def test_pickle_shards():
    shards = ("pytorch_model-1.bin", "pytorch_model-2.bin")
    found = chosen(PICKLE_INDEX, *shards, "optimizer.bin", index=weight_map(*shards), allow_pickle=True)
    assert found == {PICKLE_INDEX, *shards}


def test_every_missing_shard_is_named():
    with pytest.raises(SourceError, match=r"not there: b\.safetensors, c\.safetensors\n"):
        chosen(SAFE_INDEX, "a.safetensors", index=weight_map("c.safetensors", "a.safetensors", "b.safetensors"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "sub/a.safetensors", "..\\a.safetensors", 7])
def test_an_index_cannot_name_other_folders(name: object):
    with pytest.raises(SourceError, match="outside its folder"):
        chosen(SAFE_INDEX, index={"weight_map": {"a": name}})


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}])
def test_an_index_without_a_map(index: object):
    with pytest.raises(SourceError, match="weight_map"):
        chosen(SAFE_INDEX, index=index)


@pytest.mark.parametrize(
    ("paths", "message", "fix"),
    [
        (["model.safetensors"], "has no config.json", "config.json at its top"),
        (["adapter_config.json", "adapter_model.safetensors"], "has no config.json", "base model"),
        (["model.gguf"], "has no config.json", 'format = "gguf"'),
        (["config.json", "README.md"], "has no model.safetensors", "holds the model's weights"),
        (["config.json", "consolidated.safetensors"], "has no model.safetensors", "consolidated.safetensors"),
    ],
)
def test_what_is_missing_is_said(paths: list[str], message: str, fix: str):
    with pytest.raises(SourceError) as caught:
        select([SourceFile(path, 1) for path in paths], "hf:o/m", lambda _: {}, allow_pickle=False)
    assert message in caught.value.message
    assert fix in str(caught.value.fix)


def test_python_files_are_never_taken():
    python = ("modeling_x.py", "tokenizer.py", "additional_chat_templates/x.py")
    assert chosen(*python, "model.safetensors", allow_pickle=True) == {"model.safetensors"}


def test_what_sentence_transformers_says_of_a_model_comes_along():
    said = {"modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json"}
    others = ("2_Dense/model.safetensors", "onnx/config.json", "data_config.json", "openvino/1_Pooling/config.json")
    assert chosen("model.safetensors", *said, *others) == {"model.safetensors", *said}
