"""What is no whole checkpoint, or none that can be said in transformers' words, is refused by name, all at once."""

from __future__ import annotations

import pytest
import torch

from cogsmith.errors import SourceError
from cogsmith.sources.accessory import AccessoryImporter
from cogsmith.sources.accessory.folder import find
from cogsmith.sources.base import SourceFile
from cogsmith.sources.importer import Options

from .folders import DATA, SINGLE, Notes, change_json, convert, copy, listing, part, split, whole, write_shard

FIRST, SECOND = "consolidated.00-of-02.model.pth", "consolidated.01-of-02.model.pth"
META_SHARDS = ("consolidated.00.pth", "consolidated.01.pth")


def refused(*folders, out, **options):
    """Convert what cannot be; return the whole message."""
    with pytest.raises(SourceError) as caught:
        convert(folders, out, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "shards"),
    [
        (["consolidated.00-of-01.model.pth"], 1),
        (["consolidated.01-of-02.model.pth", "consolidated.00-of-02.model.pth", "x.pth"], 2),
        (["consolidated.00-of-01.model-diff.pth"], 1),
        (["consolidated.00.pth", "consolidated.01.pth", "params.json"], 2),
        (["consolidated.00-of-01.model.pth", "consolidated.00-of-01.optimizer.pth", "rank-specific-00000.pth"], 1),
    ],
)
def test_names_that_are_a_checkpoint(names, shards):
    assert AccessoryImporter().recognises([SourceFile(name, 1) for name in names])
    assert len(find(names).shards) == shards
    assert find(names).problems == ()


@pytest.mark.parametrize(
    "names",
    [
        ["model.safetensors", "config.json"],
        ["consolidated.safetensors", "params.json"],
        ["consolidated.00.pth", "model-00001-of-00002.safetensors", "config.json"],
        ["consolidated.00.pth", "pytorch_model.bin"],
        ["original/consolidated.00.pth", "config.json"],
        ["consolidated.00-of-01.optimizer.pth", "consolidated.00-of-01.other.pth"],
        [],
    ],
)
def test_names_that_are_none(names):
    assert not AccessoryImporter().recognises([SourceFile(name, 1) for name in names])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["consolidated.01-of-02.model.pth"], "consolidated.00-of-02.model.pth is missing"),
        (["consolidated.00-of-03.model.pth"], "consolidated.01-of-03.model.pth is missing"),
        (["consolidated.00.pth", "consolidated.02.pth"], "consolidated.01.pth is missing"),
        (["consolidated.00-of-01.model.pth", "consolidated.01-of-01.model.pth"], "01-of-01.model.pth is one too many"),
        (["consolidated.00-of-01.model.pth", "consolidated.00-of-02.model.pth"], "checkpoints in 1 and 2 parts"),
        (["consolidated.00-of-01.model.pth", "consolidated.00.pth"], "files of several checkpoints"),
        (["consolidated.00-of-01.model.pth", "consolidated.00-of-01.model-diff.pth"], "files of several checkpoints"),
        (["consolidated.0.pth", "consolidated.00.pth"], "several files of rank 0"),
        (["weights.pth"], "it holds no consolidated"),
    ],
)
def test_faults_that_names_tell(names, message):
    found = find(names)
    assert found.shards == ()
    assert message in "\n".join(found.problems)


def test_everything_that_names_tell_is_said_at_once(tmp_path):
    delta, base = copy("delta", tmp_path / "delta"), copy("llama", tmp_path / "base")
    (delta / "consolidated.00-of-02.model-diff.pth").unlink()
    for name in ("meta.json", "config.json", "tokenizer.model"):
        (delta / name).unlink()
        (base / name).unlink()
    (base / SECOND).unlink()
    with pytest.raises(SourceError) as caught:
        AccessoryImporter().select([listing(delta), listing(base)], Options())
    message = str(caught.value)
    for said in ("consolidated.00-of-02.model-diff.pth is missing", f"{SECOND} is missing", "`llama_type`"):
        assert said in message
    assert "`llama_config`" in message
    assert "`tokenizer`" in message


def test_differences_cannot_come_first(tmp_path):
    message = refused(DATA / "delta", DATA / "meta", out=tmp_path / "out")
    assert "delta: it holds differences; the weights they belong to must come first" in message


def test_files_beside_the_weights_are_never_asked_for(tmp_path):
    folder = copy("llama", tmp_path / "in")
    for name in ("consolidated.00-of-02.optimizer.pth", "consolidated.00-of-02.other.pth", "rank-specific-0.pth"):
        (folder / name).write_bytes(b"not to be read")
    (chosen,) = AccessoryImporter().select([listing(folder)], Options())
    assert {file.path for file in chosen} == {FIRST, SECOND, "config.json", "meta.json", "tokenizer.model"}


@pytest.mark.parametrize(("case", "names"), [("llama", (FIRST, SECOND)), ("meta", META_SHARDS)])
def test_shards_that_were_swapped_are_named(case, names, tmp_path):
    folder = copy(case, tmp_path / "in")
    first, second = (folder / name for name in names)
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)
    message = refused(folder, out=tmp_path / "out")
    assert f"{names[0]} is another shard: it was saved as {names[1]}" in message
    assert f"{names[1]} is another shard: it was saved as {names[0]}" in message


def test_a_name_that_says_no_rank_says_nothing(tmp_path):
    folder = copy("llama", tmp_path / "in")
    for name in (FIRST, SECOND):
        tensors = torch.load(folder / name, weights_only=True)
        torch.save(tensors, folder / "renamed.pth")
        (folder / "renamed.pth").replace(folder / name)
    convert([folder], tmp_path / "out")


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_shard_that_is_cut_off_is_named(name, tmp_path):
    folder = copy("llama", tmp_path / "in")
    (folder / name).write_bytes((folder / name).read_bytes()[:-1000])
    assert name in refused(folder, out=tmp_path / "out")


def test_a_shard_of_another_model_does_not_fit(tmp_path):
    folder = copy("llama", tmp_path / "in")
    (folder / SECOND).write_bytes((DATA / "llama_peft" / SECOND).read_bytes())
    message = refused(folder, out=tmp_path / "out")
    assert "tok_embeddings.weight is [320, 8] and [64, 8] in different shards" in message
    assert "layers.0.attention.wq.bias is in 1 of 2 shards" in message
    assert "layers.0.attention_norm.weight should be the same in every shard, and differs by" in message


def test_replicas_that_drifted_are_noted_and_those_of_another_model_refused(tmp_path):
    for factor, name in ((1.01, "near"), (1.5, "far")):
        folder = copy("llama", tmp_path / name)
        state = torch.load(folder / SECOND, weights_only=True)["model"]
        state["llma.norm.weight"] *= factor
        torch.save({"model": state}, folder / SECOND)
    notes = Notes()
    convert([tmp_path / "near"], tmp_path / "out", reporter=notes)
    assert len(notes.said) == 1
    assert "norm.weight should be the same in every shard, and differs by" in notes.said[0]
    assert "not of one checkpoint" in refused(tmp_path / "far", out=tmp_path / "far-out")


def test_a_last_shard_of_metas_that_is_missing_shows_in_the_shapes(tmp_path):
    folder = copy("meta", tmp_path / "in")
    (folder / "consolidated.01.pth").unlink()
    message = refused(folder, out=tmp_path / "out")
    assert "layers.0.attention.wq.weight is [8, 16], and the model's arguments ask for [16, 16]" in message
    assert "no shard is missing" in message


def test_tensors_missing_unfit_and_left_over_are_one_error(tmp_path):
    folder = split("llama", tmp_path / "in", 1)
    tensors = whole(folder)
    del tensors["layers.1.ffn_norm.weight"]
    tensors["layers.0.attention.wo.weight"] = torch.zeros(16, 12)
    tensors["layers.2.ffn_norm.weight"] = torch.zeros(16)
    write_shard(folder, 0, 1, tensors)
    message = refused(folder, out=tmp_path / "out")
    assert "missing: layers.1.ffn_norm.weight" in message
    assert "layers.0.attention.wo.weight is [16, 12], and the model's arguments ask for [16, 16]" in message
    assert "no part of a llama: layers.2.ffn_norm.weight" in message


@pytest.mark.parametrize("name", ["clip.visual.proj", "clip_proj.weight", "qformer.bert.weight"])
def test_a_visual_model_is_not_taken_for_a_text_model(name, tmp_path):
    folder = split("llama", tmp_path / "in", 1)
    write_shard(folder, 0, 1, {**whole(folder), name: torch.zeros(4, 4)})
    assert f"tensors of no supported type: {name}" in refused(folder, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("llama_type", "reason"),
    [
        ("llama_adapter", "prefixes"),
        ("llama_ens5", "visual encoders"),
        ("mixtral_sparse_ens", "visual encoders"),
        ("llama_qformerv2_peft", "query transformer"),
        ("gpt", "is not supported"),
    ],
)
def test_unsupported_types_are_refused_with_the_reason(llama_type, reason, tmp_path):
    folder = copy("llama", tmp_path / "in")
    change_json(folder / "meta.json", llama_type=llama_type)
    message = refused(folder, out=tmp_path / "out")
    assert reason in message
    assert "supported are llama, llama_peft, internlm, falcon, mixtral, mixtral_sparse" in message
    by_hand = refused(DATA / "llama", out=tmp_path / "by-hand", llama_type=llama_type)
    assert f"llama_type '{llama_type}' is not supported" in by_hand


def test_tuned_weights_need_a_type_that_has_them(tmp_path):
    message = refused(DATA / "llama_peft", out=tmp_path / "out", llama_type="llama")
    assert "no part of a llama: layers.0.attention.wq.bias, layers.0.attention.wq.lora_a.weight" in message
    assert "check llama_type" in message


def test_internlm_in_several_shards_is_refused(tmp_path):
    folder = copy("internlm", tmp_path / "in")
    for rank in range(2):
        write_shard(folder, rank, 2, whole(DATA / "internlm"))
    (folder / SINGLE).unlink()
    assert "layers.0.mixer.Wqkv.weight is in several shards" in refused(folder, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 0}, "n_heads is 0"),
        ({"n_heads": 3}, "a width of 16 does not make 3 heads"),
        ({"n_kv_heads": 3}, "over 3 for keys and values"),
        ({"rope_scaling": -1}, "rope_scaling is -1"),
        ({"rope_theta": "big"}, "rope_theta is 'big'"),
        ({"use_scaled_rope": True}, "arguments that are not known: use_scaled_rope"),
        ({"ffn_dim_multiplier": 2.0}, "layers.0.feed_forward.w1.weight is [56, 16]"),
    ],
)
def test_arguments_that_cannot_be(change, message, tmp_path):
    folder = copy("llama", tmp_path / "in")
    change_json(folder / "config.json", **change)
    assert message in refused(folder, out=tmp_path / "out")


def test_json_that_is_none_is_named(tmp_path):
    folder = copy("llama", tmp_path / "in")
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read as JSON" in refused(folder, out=tmp_path / "out")


def test_a_difference_of_another_shape_is_refused(tmp_path):
    folder = copy("meta", tmp_path / "base")
    for rank in range(2):
        path = folder / f"consolidated.{rank:02d}.pth"
        state = torch.load(path, weights_only=True)
        torch.save({**state, "output.weight": torch.zeros(30, 16)}, path)
    message = refused(folder, DATA / "delta", out=tmp_path / "out")
    assert "output.weight is a difference of the shape [64, 16], and what it is to be added to has [60, 16]" in message


def test_what_is_not_tensors_is_refused(tmp_path):
    folder = split("llama", tmp_path / "in", 1)
    for content in ([1, 2], {"model": {}}, {"model": {"llma.norm.weight": torch.zeros(4, dtype=torch.int8)}}):
        torch.save(content, folder / SINGLE)
        with pytest.raises(SourceError, match=SINGLE):
            AccessoryImporter().convert([part(folder)], Options(), tmp_path, Notes())
