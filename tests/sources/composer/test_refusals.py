"""What cannot be converted is refused before anything is written, with what it is and what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cogsmith.errors import ConversionError, SourceError

from .runs import ADAPTER_ALONE, FILE, FIXTURES, NEWEST, RUN, config_of, convert, edited, model_of, tokenizer_of

Change = Callable[[dict[str, Any]], object]


def refused(run: Path, tmp_path: Path, *words: str, kind: type[Exception] = ConversionError) -> None:
    with pytest.raises(kind) as caught:
        convert(run, tmp_path / "out")
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.fix
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("top", [{}, {"model": {}}, [1], {"state": [1]}])
def test_another_programs_file(top: object, tmp_path: Path):
    (tmp_path / "run").mkdir()
    torch.save(top, tmp_path / "run" / FILE)
    refused(tmp_path / "run", tmp_path, 'has no "state"', kind=SourceError)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("model"), ["no model's weights"]),
        (lambda state: state["model"].clear(), ["no model's weights"]),
        (lambda state: state.pop("integrations"), ["no HuggingFaceModel"]),
        (lambda state: state["integrations"].clear(), ["no HuggingFaceModel"]),
        (lambda state: state.clear(), ["no model's weights", "no HuggingFaceModel"]),
    ],
)
def test_parts_that_are_missing(change: Change, words: list[str], tmp_path: Path):
    refused(edited(RUN, tmp_path, change), tmp_path, *words, kind=SourceError)


def test_metadata_that_is_no_json(tmp_path: Path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "composer_metadata.json").write_text("{")
    (tmp_path / "run" / "model" / "model.pt").write_bytes(b"")
    refused(tmp_path / "run", tmp_path, "is not JSON", kind=SourceError)


def test_metadata_of_another_model(tmp_path: Path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "composer_metadata.json").write_text(json.dumps({"model_name": "ResNet"}))
    saved = (FIXTURES / NEWEST / "ep0-ba2" / "model" / "model.pt").read_bytes()
    (tmp_path / "run" / "model" / "model.pt").write_bytes(saved)
    refused(tmp_path / "run", tmp_path, "no HuggingFaceModel", kind=SourceError)


@pytest.mark.parametrize(
    ("class_name", "model_type"), [("mine.modeling.MyModel", "mine"), ("transformers.GPT2LMHeadModel", "mine")]
)
def test_a_class_that_transformers_does_not_have(class_name: str, model_type: str, tmp_path: Path):
    def rename(state: dict) -> None:
        model_of(state)["config"]["class"] = class_name
        config_of(state)["model_type"] = model_type

    with pytest.raises(ConversionError, match=class_name) as caught:
        convert(edited(RUN, tmp_path, rename), tmp_path / "out")
    assert "code.path" in str(caught.value.fix)


class Command:
    """What a pickle runs when Python's own unpickler reads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("place", ["metadata", "integrations", "callbacks"])
def test_a_command_in_an_otherwise_genuine_checkpoint(place: str, tmp_path: Path):
    mark = tmp_path / "mark"
    run = edited(RUN, tmp_path, lambda state: state.setdefault(place, {}).update({"x": Command(f"touch {mark}")}))
    refused(run, tmp_path, "system", kind=SourceError)
    assert not mark.exists()
    torch.load(run / FILE, weights_only=False)
    assert mark.exists(), "the command is one that would have run"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_cut_short(share: float, tmp_path: Path):
    whole = (FIXTURES / RUN / FILE).read_bytes()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).write_bytes(whole[: int(len(whole) * share)])
    refused(tmp_path / "run", tmp_path, FILE, kind=SourceError)


def test_a_packed_file_cut_short(tmp_path: Path):
    name = "ep0-ba2-rank0.tar.gz"
    whole = (FIXTURES / "gpt2_tar" / name).read_bytes()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_bytes(whole[:-500])
    refused(tmp_path / "run", tmp_path, name, kind=SourceError)


def test_an_entry_that_is_no_tensor(tmp_path: Path):
    run = edited(RUN, tmp_path, lambda state: state["model"].update({"model.transformer.wte.weight": "elsewhere"}))
    refused(run, tmp_path, "transformer.wte.weight", kind=SourceError)


def test_numbers_that_half_precision_cannot_hold(tmp_path: Path):
    def grow(state: dict) -> None:
        state["model"]["model.transformer.ln_f.weight"][3] = 1e5

    run = edited(RUN, tmp_path, grow)
    with pytest.raises(ConversionError, match=r"transformer\.ln_f\.weight has numbers up to 100000") as caught:
        convert(run, tmp_path / "out", output_precision="fp16")
    assert "bf16" in str(caught.value.fix)
    convert(run, tmp_path / "bf16", output_precision="bf16")


def test_a_config_that_transformers_cannot_read(tmp_path: Path):
    run = edited(RUN, tmp_path, lambda state: config_of(state).update(n_embd="wide"))
    refused(run, tmp_path, "n_embd")


def test_shared_weights_that_differ(tmp_path: Path):
    run = edited(RUN, tmp_path, lambda state: state["model"]["model.lm_head.weight"].add_(1))
    refused(run, tmp_path, "lm_head.weight is not transformer.wte.weight")


def test_a_config_that_is_no_json(tmp_path: Path):
    run = edited(RUN, tmp_path, lambda state: config_of(state).update({"odd": torch.float16}))
    refused(run, tmp_path, "odd")


def test_an_adapter_without_its_model(tmp_path: Path):
    refused(FIXTURES / ADAPTER_ALONE, tmp_path, "holds the adapter alone")


def _second_adapter(state: dict) -> None:
    name = next(name for name in state["model"] if ".lora_A.default." in name)
    state["model"][name.replace("default", "second")] = state["model"][name]


def _magnitudes(state: dict) -> None:
    name = next(name for name in state["model"] if ".lora_A.default." in name)
    state["model"][name.replace("lora_A", "lora_magnitude_vector")] = torch.ones(1)


def _settings(**changes: object) -> Change:
    return lambda state: model_of(state)["peft_config"]["content"].update(changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_second_adapter, ["several adapters: default, second"]),
        (_magnitudes, ["lora_magnitude_vector"]),
        (_settings(use_dora=True), ["use_dora"]),
        (_settings(layer_replication=[[0, 1]]), ["layer_replication"]),
        (_settings(peft_type="IA3"), ["IA3"]),
        (_settings(alpha_pattern={"(a+)+$": 2}), ["alpha_pattern '(a+)+$'"]),
    ],
)
def test_an_adapter_that_is_no_plain_sum(change: Change, words: list[str], tmp_path: Path):
    refused(edited("lora", tmp_path, change), tmp_path, *words)


def test_an_adapter_of_another_shape(tmp_path: Path):
    def cut(state: dict) -> None:
        name = next(name for name in state["model"] if name.endswith("down_proj.lora_A.default.weight"))
        state["model"][name] = state["model"][name][:, :-1].clone()

    refused(edited("lora", tmp_path, cut), tmp_path, "do not fit")


MOSAIC = {
    "attn_qk_ln": (True, "qk_ln"),
    "prefix_lm": (True, "prefix_lm"),
    "logit_scale": ("inv_sqrt_d_model", "logit_scale"),
    "multiquery_attention": (True, "multiquery_attention"),
    "norm_type": ("rmsnorm", "norm_type 'rmsnorm'"),
}


@pytest.mark.parametrize("key", MOSAIC)
@pytest.mark.parametrize("name", ["mosaic_gpt", "mosaic_gpt_alibi"])
def test_a_mosaicgpt_that_no_known_model_computes(name: str, key: str, tmp_path: Path):
    value, word = MOSAIC[key]
    refused(edited(name, tmp_path, lambda state: config_of(state).update({key: value})), tmp_path, word)


@pytest.mark.parametrize(
    ("name", "key", "value", "word"),
    [
        ("mosaic_gpt", "attn_clip_qkv", 6.0, "clip_qkv without ALiBi"),
        ("mosaic_gpt", "softmax_scale", 0.3, "softmax_scale 0.3"),
        ("mosaic_gpt_alibi", "alibi_bias_max", 16, "alibi_bias_max 16"),
        ("mosaic_gpt_alibi", "mlp_ratio", 2, "an MLP 2 times as wide"),
        ("mosaic_gpt_alibi", "n_heads", 3, "3 heads"),
    ],
)
def test_what_one_of_the_two_forms_cannot_do(name: str, key: str, value: object, word: str, tmp_path: Path):
    refused(edited(name, tmp_path, lambda state: config_of(state).update({key: value})), tmp_path, word)


def test_every_fault_of_a_mosaicgpt_at_once(tmp_path: Path):
    changes = {"attn_qk_ln": True, "prefix_lm": True, "attn_clip_qkv": 6.0}
    run = edited("mosaic_gpt", tmp_path, lambda state: config_of(state).update(changes))
    refused(run, tmp_path, "qk_ln", "prefix_lm", "clip_qkv")


def test_the_default_softmax_scale_said_outright_is_no_fault(tmp_path: Path):
    run = edited("mosaic_gpt", tmp_path, lambda state: config_of(state).update(softmax_scale=0.5))
    convert(run, tmp_path / "out")


def test_alibi_with_biases(tmp_path: Path):
    bias = {"model.transformer.ln_f.bias": torch.ones(8)}
    run = edited("mosaic_gpt_alibi", tmp_path, lambda state: state["model"].update(bias))
    refused(run, tmp_path, "ALiBi and biases together")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rope": True}, "rope"),
        ({"attn_type": "grouped_query_attention", "kv_n_heads": 2}, "attn_type grouped_query_attention"),
        ({"sliding_window_size": 128}, "sliding_window_size"),
        ({"qk_ln": True}, "qk_ln"),
    ],
)
def test_an_mpt_that_transformers_would_compute_otherwise(changes: dict, word: str, tmp_path: Path):
    run = edited("mpt", tmp_path, lambda state: config_of(state)["attn_config"].update(changes))
    refused(run, tmp_path, word)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda weights: weights.update({"module.model.transformer.ln_f.bias": torch.ones(8)}), "ln_f.bias twice"),
        (lambda weights: weights.update({"model.transformer.ln_f.bias": torch.ones(8) * 1j}), "complex"),
    ],
)
def test_tensors_of_one_name_or_of_no_real_numbers(change: Change, word: str, tmp_path: Path):
    run = edited(RUN, tmp_path, lambda state: change(state["model"]))
    refused(run, tmp_path, word, kind=SourceError)


def spoil_config(state: dict[str, Any]) -> None:
    config_of(state)["note"] = "\ud800"


def spoil_tokenizer(state: dict[str, Any]) -> None:
    tokenizer_of(state)["tokenizer.json"]["content"]["note"] = "\ud800"


@pytest.mark.parametrize(
    ("change", "word", "kind"),
    [(spoil_config, "'note' that is no Unicode", ConversionError), (spoil_tokenizer, "tokenizer.json", SourceError)],
)
def test_text_that_is_no_unicode(change: Change, word: str, kind: type[Exception], tmp_path: Path):
    refused(edited(RUN, tmp_path, change), tmp_path, word, kind=kind)


def test_kernels_from_the_hub_stay_there(tmp_path: Path):
    """transformers fetches and runs what `attn_implementation` names, where it has a slash in it."""
    names = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation")
    run = edited(RUN, tmp_path, lambda state: config_of(state).update(dict.fromkeys(names, "somebody/kernel")))
    assert "somebody" not in (convert(run, tmp_path / "out") / "config.json").read_text(encoding="utf-8")
