"""Exported graphs in onnxruntime, against plain transformers over the same checkpoint."""

from __future__ import annotations

import io
import json
import re
import sys

import onnx
import onnxruntime
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MptConfig

from cogsmith.cli import main as cli
from cogsmith.errors import ConversionError, UserError
from cogsmith.export import graph
from cogsmith.export.onnx import Shape, export
from cogsmith.sources.object_store import upload
from cogsmith.sources.silent import Silent

from ..engine.models import SHAPE, VOCAB, byte_tokenizer, random_model

LENGTH = 24
CONFIGS = {
    "llama": lambda: LlamaConfig(**{**SHAPE, "max_position_embeddings": LENGTH}),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=LENGTH, bos_token_id=1, eos_token_id=None
    ),
    # ALiBi, which has no fused attention.
    "mpt": lambda: MptConfig(vocab_size=VOCAB, d_model=16, n_heads=2, n_layers=2, max_seq_len=LENGTH),
}
SHAPES = [(2, LENGTH), (1, 1), (5, 7), (1, LENGTH), (3, LENGTH - 1)]


@pytest.fixture(scope="module", params=list(CONFIGS))
def checkpoint(request, tmp_path_factory):
    return saved(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def llama(tmp_path):
    return saved("llama", tmp_path)


def saved(kind, root):
    random_model(CONFIGS[kind](), scale=2.0).save_pretrained(root / kind)
    return root / kind


def place(folder):
    return f"path:{folder}"


def truth(checkpoint, ids, mask):
    """What the model says where nothing is exported: with the attention that transformers itself would choose."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def run(folder, ids, mask):
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["output"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    return torch.from_numpy(logits)


def tokens(rows, length, padding=0):
    """Random ids, each row with one more token of padding before it than the one above, up to `padding`."""
    ids, mask = torch.randint(0, VOCAB, (rows, length)), torch.ones(rows, length, dtype=torch.int64)
    for row in range(rows):
        mask[row, : min(row + 1, padding, length - 1)] = 0
    return ids, mask


def dimensions(value):
    return [dimension.dim_value or dimension.dim_param for dimension in value.type.tensor_type.shape.dim]


@pytest.mark.slow
def test_a_graph_of_fixed_shape(checkpoint, tmp_path):
    exported = export(checkpoint, place(tmp_path / "out"), Shape(batch=2), reporter=Silent())
    model = onnx.load(tmp_path / "out/model.onnx")
    onnx.checker.check_model(model)
    assert [(value.name, dimensions(value)) for value in model.graph.input] == [
        ("input_ids", [2, LENGTH]),
        ("attention_mask", [2, LENGTH]),
    ]
    assert [(value.name, dimensions(value)) for value in model.graph.output] == [("output", [2, LENGTH, VOCAB])]
    assert sorted(exported.files) == ["model.onnx", "model.onnx.data"]
    assert exported.largest_difference < 1e-4
    assert exported.n_params == AutoModelForCausalLM.from_pretrained(checkpoint).num_parameters()
    for padding in (0, 5):
        ids, mask = tokens(2, LENGTH, padding)
        theirs, ours = truth(checkpoint, ids, mask), run(tmp_path / "out", ids, mask)
        torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_graph_of_any_shape(checkpoint, tmp_path):
    exported = export(checkpoint, place(tmp_path / "out"), Shape(batch=1, dynamic=True), reporter=Silent())
    assert exported.largest_difference < 1e-4
    model = onnx.load(tmp_path / "out/model.onnx", load_external_data=False)
    assert [dimensions(value) for value in model.graph.input] == [["batch", "sequence"]] * 2
    for rows, length in SHAPES:
        for padding in (0, 3):
            ids, mask = tokens(rows, length, padding)
            theirs, ours = truth(checkpoint, ids, mask), run(tmp_path / "out", ids, mask)
            torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_graph_says_nothing_of_this_machine(llama, tmp_path):
    export(llama, place(tmp_path / "out"), Shape(batch=1), reporter=Silent())
    for word in (b".py", str(tmp_path).encode(), b"site-packages"):
        assert word not in (tmp_path / "out/model.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("there", [None, "old.txt"])
def test_one_wrong_weight_is_found_and_nothing_is_left(llama, tmp_path, monkeypatch, there):
    """As a user sees it: exit code 1, the difference, and what was there before."""
    write = graph.write

    def write_wrongly(*arguments, **settings):
        write(*arguments, **settings)
        (data,) = tmp_path.glob("**/model.onnx.data")
        content = bytearray(data.read_bytes())
        content[4 * VOCAB + 3] ^= 0x7F  # the exponent of one number
        data.write_bytes(content)

    monkeypatch.setattr(graph, "write", write_wrongly)
    arguments = ["cogsmith", "export", "onnx", str(llama), "--output_folder", str(tmp_path / "out")]
    if there:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / there).write_text("mine")
        arguments.append("--force")
    said = io.StringIO()
    monkeypatch.setattr(cli, "err", Console(file=said, soft_wrap=True))
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "the largest difference is" in said.getvalue()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama", *(["out"] if there else [])]
    assert not there or [path.name for path in (tmp_path / "out").iterdir()] == [there]


@pytest.mark.slow
def test_ids_are_those_that_the_tokenizer_has(llama, tmp_path, monkeypatch):
    """A head may be wider than the vocabulary; and without verification the model is not run."""
    byte_tokenizer().save_pretrained(llama)
    seen = []
    write = graph.write

    def spy(model, sample, *arguments, **settings):
        seen.append(sample)
        write(model, sample, *arguments, **settings)

    monkeypatch.setattr(graph, "write", spy)
    monkeypatch.setattr(graph, "logits", None)
    exported = export(llama, place(tmp_path / "out"), Shape(batch=3, length=5), verify=False, reporter=Silent())
    assert exported.largest_difference is None
    (sample,) = seen
    torch.manual_seed(42)
    assert torch.equal(sample.input_ids, torch.randint(0, VOCAB, (3, 5), dtype=torch.int64))
    assert sample.attention_mask.tolist() == [[1] * 5] * 3


def test_a_model_without_a_length_needs_one(llama, tmp_path):
    config = json.loads((llama / "config.json").read_text()) | {"model_type": "bloom", "n_layer": 2, "n_head": 2}
    (llama / "config.json").write_text(json.dumps({**config, "architectures": ["BloomForCausalLM"]}))
    text = json.loads((llama / "config.json").read_text())
    del text["max_position_embeddings"]
    (llama / "config.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match=r"config\.json has none of max_seq_len, max_position_embeddings") as caught:
        export(llama, place(tmp_path / "out"), reporter=Silent())
    assert "--max-seq-len" in caught.value.fix
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("shape", "opset", "words"),
    [
        (Shape(length=LENGTH + 1), None, "longer than the model's 24"),
        (Shape(length=1, dynamic=True), None, "leave out --dynamic"),
        (Shape(), 16, "--opset 16"),
        (Shape(), 99, "--opset 99"),
        (Shape(batch=10**9), None, "not enough memory: .* copies of 0.00 GB of weights"),
    ],
)
def test_what_cannot_be_asked(llama, tmp_path, shape, opset, words):
    with pytest.raises(UserError) as caught:
        export(llama, place(tmp_path / "out"), shape, opset=opset, reporter=Silent())
    assert re.search(words, str(caught.value))
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_without_force_and_the_model_never(llama, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    for target, words in (("out", "is not empty"), ("llama", "would replace"), ("llama/onnx", "is inside")):
        with pytest.raises(UserError, match=words):
            export(llama, place(tmp_path / target), force=target != "out", reporter=Silent())
    with pytest.raises(UserError, match="would replace"):
        export(llama, place(tmp_path), force=True, reporter=Silent())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "a.A", "AutoModelForCausalLM": "a.B"}}, "code of its own"),
        ({"model_type": "nothing"}, "no model for"),
    ],
)
def test_a_model_that_has_no_such_form(llama, tmp_path, changed, words):
    config = json.loads((llama / "config.json").read_text()) | changed
    (llama / "config.json").write_text(json.dumps(config))
    (llama / "a.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match=words):
        export(llama, place(tmp_path / "out"), reporter=Silent())
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match="is no checkpoint"):
        export(tmp_path, place(tmp_path / "out/onnx"), reporter=Silent())


def test_what_the_exporter_does_not_know(llama, tmp_path, monkeypatch):
    def fail(*arguments, **settings):
        raise torch.onnx.OnnxExporterError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ConversionError, match="no such operator"):
        export(llama, place(tmp_path / "out"), Shape(batch=1), reporter=Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]


@pytest.mark.slow
def test_a_store_gets_the_weights_first_and_what_came_back_runs(llama, tmp_path, s3):
    uri = f"s3://{s3.bucket}/models/onnx"
    exported = export(llama, uri, Shape(batch=2), reporter=Silent())
    (tmp_path / "back").mkdir()
    for name in exported.files:
        s3.client.download_file(s3.bucket, f"models/onnx/{name}", str(tmp_path / "back" / name))
    ids, mask = tokens(2, LENGTH)
    torch.testing.assert_close(run(tmp_path / "back", ids, mask), truth(llama, ids, mask), rtol=1e-4, atol=1e-4)
    put = [request.path.rpartition("/")[2] for request in s3.log if request.method == "PUT"]
    assert put == ["model.onnx.data", "model.onnx"]
    s3.forget()
    with pytest.raises(UserError, match=r"is not empty: there are model\.onnx, model\.onnx\.data"):
        export(llama, uri, Shape(batch=1), reporter=Silent())
    assert not [request for request in s3.log if request.method not in ("GET", "HEAD")]


def test_an_upload_that_is_cut_leaves_no_graph_over_others_weights(s3, tmp_path, monkeypatch):
    for name in ("model.onnx", "model.onnx.data"):
        s3.client.put_object(Bucket=s3.bucket, Key=f"there/{name}", Body=b"old")
        (tmp_path / name).write_bytes(b"new")
    s3.forget()
    upload(tmp_path, f"s3://{s3.bucket}/there", force=True, reporter=Silent())
    order = [(one.method, one.path.rpartition("/")[2]) for one in s3.log if one.method in ("PUT", "DELETE")]
    assert order == [("DELETE", "model.onnx"), ("PUT", "model.onnx.data"), ("PUT", "model.onnx")]
