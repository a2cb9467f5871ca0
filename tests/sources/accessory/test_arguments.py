"""Arguments, type and tokenizer: found, given by hand, merged."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cogsmith.errors import SourceError

from .folders import DATA, change_json, convert, copy, expected, part
from .test_logits import check


def bare(case, folder):
    """Return a copy of a folder of data/ with its weights alone."""
    copy(case, folder)
    for path in folder.iterdir():
        if not path.name.startswith("consolidated"):
            path.unlink()
    return folder


def test_weights_alone_with_everything_given_by_hand(tmp_path):
    folder, given = bare("llama", tmp_path / "in"), DATA / "llama"
    tokenizer = part(given)
    out = convert(
        [folder],
        tmp_path / "out",
        llama_type="llama",
        llama_config=(given / "config.json",),
        tokenizer=tokenizer,
        output_precision="fp32",
    )
    check(out, "llama")


@pytest.mark.parametrize("key", ["llama_type", "llama_config", "tokenizer"])
def test_what_is_neither_found_nor_given_is_named_by_its_key(key, tmp_path):
    folder, given = bare("llama", tmp_path / "in"), DATA / "llama"
    options = {"llama_type": "llama", "llama_config": (given / "config.json",), "tokenizer": part(given)}
    del options[key]
    with pytest.raises(SourceError) as caught:
        convert([folder], tmp_path / "out", **options)
    assert f"`{key}`" in str(caught.value)
    assert not any(f"`{other}`" in str(caught.value) for other in options)


def test_values_given_by_hand_override_those_found(tmp_path):
    given = tmp_path / "given.json"
    given.write_text('{"rope_theta": 20000}')
    out = convert([DATA / "llama"], tmp_path / "out", llama_config=(given,), output_precision="fp32")
    # The truth is plain transformers with the same weights and the other base.
    plain = convert([DATA / "llama"], tmp_path / "plain", output_precision="fp32")
    ids = torch.tensor([expected("llama")["ids"]])
    with torch.inference_mode():
        have = AutoModelForCausalLM.from_pretrained(out)(ids).logits
        config = AutoModelForCausalLM.from_pretrained(plain).config
        config.rope_parameters = {**config.rope_parameters, "rope_theta": 20000.0}
        want = AutoModelForCausalLM.from_pretrained(plain, config=config)(ids).logits
    torch.testing.assert_close(have, want, atol=0, rtol=0)
    assert (have[0] - expected("llama")["logits"]).abs().max() > 0.1


def test_of_several_files_the_later_wins_and_null_is_the_default(tmp_path):
    files = []
    for number, content in enumerate(({"rope_theta": 7.0, "norm_eps": 0.5}, {"rope_theta": 9.0}, {"norm_eps": None})):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(content))
    config = json.loads((convert([DATA / "llama"], tmp_path / "out", llama_config=files) / "config.json").read_text())
    assert config["rope_theta"] == 9.0
    assert config["rms_norm_eps"] == 1e-5


def test_meta_params_and_the_arguments_of_what_was_trained_go_together(tmp_path):
    # As LLaMA2-Accessory is called: --llama_config params.json llamaPeft_normBiasLora.json
    folder = bare("tuned", tmp_path / "in")
    lora = tmp_path / "lora.json"
    lora.write_text('{"lora_rank": 2, "bias_tuning": true, "norm_tuning": true}')
    out = convert(
        [folder],
        tmp_path / "out",
        llama_type="llama_peft",
        llama_config=(DATA / "meta/params.json", lora),
        tokenizer=part(DATA / "tuned"),
        output_precision="fp32",
    )
    check(out, "tuned")


def test_a_type_given_by_hand_overrides_the_one_found(tmp_path):
    folder = copy("mixtral", tmp_path / "in")
    change_json(folder / "meta.json", llama_type="llama_adapter")
    check(convert([folder], tmp_path / "out", llama_type="mixtral", output_precision="fp32"), "mixtral")


def test_beside_metas_weights_a_config_json_is_hugging_faces(tmp_path):
    folder = copy("meta", tmp_path / "in")
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 4096}')
    check(convert([folder], tmp_path / "out", output_precision="fp32"), "meta")


def test_falcon_with_key_heads_of_its_own_in_every_shard(tmp_path):
    """40B's layout, which the original's own code cannot build: transformers is the truth, from the parts' meaning."""
    from .folders import shard, whole, write_shard

    folder = tmp_path / "in"
    copy("falcon_new", folder)
    tensors, width, heads, keys = whole(folder), 4, 4, 2
    for layer in range(2):
        for kind in "kv":
            for end in ("weight", "bias"):
                name = f"layers.{layer}.self_attention.w{kind}.{end}"
                one = tensors[name]
                tensors[name] = torch.cat([one, one.flip(0) * 0.7])
    change_json(folder / "config.json", num_kv_heads=keys)
    (folder / "consolidated.00-of-01.model.pth").unlink()
    for rank in range(2):
        cut = shard(tensors, rank, 2)
        cut |= {name: tensors[name].chunk(2)[rank] for name in tensors if ".wk." in name or ".wv." in name}
        write_shard(folder, rank, 2, cut)
    out = load_file(convert([folder], tmp_path / "out") / "model.safetensors")
    fused = out["transformer.h.1.self_attention.query_key_value.weight"]
    query, key, value = (tensors[f"layers.1.self_attention.w{kind}.weight"] for kind in "qkv")
    rows = []
    for group in range(keys):
        rows += [query[group * heads // keys * width : (group + 1) * heads // keys * width]]
        rows += [key[group * width : (group + 1) * width], value[group * width : (group + 1) * width]]
    assert torch.equal(fused, torch.cat(rows))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.num_kv_heads == keys
