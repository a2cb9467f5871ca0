"""What a good config.toml becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogsmith.config import CogSettings, Model, load
from cogsmith.config.model import OutputSettings
from cogsmith.errors import ConfigError
from cogsmith.manifest import Limits
from cogsmith.quant import Quant

REPOSITORY = Path(__file__).parents[2]

UPSTREAM = """\
dest_prefix = "r8.im/acme/"

[models.llama-2-13b--4bit]
huggingface.repo = "meta-llama/Llama-2-13b-hf"
huggingface.version = "99afe33d7eaa87c7fc6ea2594a0e4e7e588ee0a4"
config.load_in_4bit = true
config.rope_scaling = {type = "dynamic", factors = [1, 2.5]}

[models.'vicuna.1_5']
huggingface.repo = "lmsys/vicuna-7b-v1.5"
"""


def test_the_upstream_format_is_read_unchanged(write):
    path = write(UPSTREAM)

    project = load(path)

    assert (project.path, project.root, project.dest_prefix) == (path, path.parent, "r8.im/acme/")
    assert list(project.models) == ["llama-2-13b--4bit", "vicuna.1_5"]
    llama, vicuna = project.models.values()
    assert llama.source == "hf:meta-llama/Llama-2-13b-hf"
    assert llama.revision == "99afe33d7eaa87c7fc6ea2594a0e4e7e588ee0a4"
    assert llama.model_args == {"rope_scaling": {"type": "dynamic", "factors": [1, 2.5]}}
    assert llama.quant == Quant(bits=4)
    assert (llama.name, llama.line) == ("llama-2-13b--4bit", 3)
    assert (vicuna.source, vicuna.revision, vicuna.line) == ("hf:lmsys/vicuna-7b-v1.5", None, 9)


def test_what_is_left_out_is_filled_in(write):
    model = load(write("[models.m]\nsource = 'hf:gpt2'\n")).models["m"]

    assert (model.format, model.output_precision, model.allow_pickle) == ("auto", None, False)
    assert (model.model_args, model.requirements) == ({}, ())
    assert (model.limits, model.cog) == (Limits(), CogSettings())


def test_every_key_arrives(write):
    text = """\
    [models.m]
    source = "hf:acme/m"
    format = "hf"
    output_precision = "bf16"
    allow_pickle = true
    requirements = ["einops == 0.8.1", "tiktoken[extra]==0.9.0"]
    task = "causal-lm"
    engine = "transformers"
    limits = {max_batch_size = 1, max_queue = 2, max_context = 30, max_tokens = 20}
    cog = {gpu = false, cuda = "12.4", python = "3.12", system_packages = ["libgomp1", "git=1:2.39"], concurrency = 3}
    """

    model = load(write(text)).models["m"]

    assert (model.format, model.output_precision, model.allow_pickle) == ("hf", "bf16", True)
    assert model.requirements == ("einops==0.8.1", "tiktoken[extra]==0.9.0")
    assert model.limits == Limits(max_batch_size=1, max_queue=2, max_context=30, max_tokens=20)
    assert model.cog == CogSettings(
        gpu=False, cuda="12.4", python="3.12", system_packages=("libgomp1", "git=1:2.39"), concurrency=3
    )


def test_every_key_of_a_checkpoint_that_is_converted_arrives(write, tmp_path):
    for name in ("base", "tokenizer.model", "a.json", "b.json"):
        (tmp_path / name).touch()
    text = """\
    [models.m]
    source = ["./base", "hf://acme/delta/7b@v1"]
    format = "accessory"
    allow_patterns = ["*.pth", "*.json"]
    tokenizer = "tokenizer.model"
    llama_type = "llama_peft"
    llama_config = ["a.json", "./b.json"]
    source_cache = "../downloads"
    output = {uri = "out/m", format = "bin", force = true}
    config = {device = "cuda:1", max_seq_len = 2048, dtype = "bf16", autocast_dtype = "fp16"}
    """

    model = load(write(text)).models["m"]

    assert (model.source, model.revision) == (f"path:{tmp_path}/base", None)
    assert model.further_sources == ("hf:acme/delta/7b@v1",)
    assert model.sources == (f"path:{tmp_path}/base", "hf:acme/delta/7b@v1")
    assert (model.format, model.allow_patterns) == ("accessory", ("*.pth", "*.json"))
    assert model.tokenizer == f"path:{tmp_path}/tokenizer.model"
    assert (model.llama_type, model.llama_config) == ("llama_peft", (tmp_path / "a.json", tmp_path / "b.json"))
    assert model.source_cache == tmp_path.parent / "downloads"
    assert model.output == OutputSettings(f"path:{tmp_path}/out/m", "bin", force=True)
    assert model.model_args == {
        "device_map": "cuda:1",
        "max_seq_len": 2048,
        "dtype": "bfloat16",
        "autocast_dtype": "float16",
    }


def test_one_text_is_a_list_of_one(write, tmp_path):
    (tmp_path / "a.json").touch()
    text = (
        "source = ['hf:acme/m@v1']\nllama_config = 'a.json'\nallow_patterns = '*.pth'\noutput.uri = 's3://bucket/out'"
    )

    model = load(write(f"[models.m]\n{text}\n")).models["m"]

    assert (model.source, model.revision, model.further_sources) == ("hf:acme/m", "v1", ())
    assert model.sources == ("hf:acme/m@v1",)
    assert (model.llama_config, model.allow_patterns) == ((tmp_path / "a.json",), ("*.pth",))
    assert model.output == OutputSettings("s3://bucket/out", "safetensors", force=False)


def test_a_version_is_the_only_source_s(write):
    text = "[models.m]\nsource = ['hf:acme/m']\nhuggingface.version = 'dev'\n"

    assert load(write(text)).models["m"].revision == "dev"


@pytest.mark.parametrize(
    ("format", "shape", "limits", "left", "context"),
    [
        ("accessory", None, Limits(), {}, 2048),
        ("accessory", None, Limits(max_context=512), {}, 512),
        ("hf", {"model_type": "llama"}, Limits(max_context=4096), {}, 2048),
        # MPT's own word, which from_pretrained understands.
        ("hf", {"model_type": "mpt", "max_seq_len": 512}, Limits(), {"max_seq_len": 2048}, None),
        ("composer", None, Limits(), {"max_seq_len": 2048}, None),
    ],
)
def test_max_seq_len_is_a_limit_where_it_is_no_word_of_the_model(format, shape, limits, left, context):
    model = Model("m", "hf:a/b", model_args={"max_seq_len": 2048, "dtype": "float32"}, limits=limits)

    served = model.served_as(format, shape)

    assert served.model_args == {**left, "dtype": "float32"}
    assert served.limits.max_context == context


def test_without_max_seq_len_a_model_is_served_as_it_is():
    model = Model("m", "hf:a/b", limits=Limits(max_context=512))

    assert model.served_as("accessory", None) is model


@pytest.mark.parametrize(
    ("written", "prefix"),
    [
        ("r8.im/acme/", "r8.im/acme/"),
        ("r8.im/acme", "r8.im/acme/"),
        ("localhost:5000", "localhost:5000/"),
        ("ghcr.io/a-b/c__d", "ghcr.io/a-b/c__d/"),
    ],
)
def test_the_image_prefix_ends_in_a_slash(write, written, prefix):
    assert load(write(f"dest_prefix = '{written}'\n[models.m]\nsource = 'hf:a/b'\n")).dest_prefix == prefix


def test_the_placeholder_may_stand_where_it_is_allowed(write):
    path = write("dest_prefix = 'r8.im/YOURACCOUNT/'\n[models.m]\nsource = 'hf:a/b'\n")

    assert load(path, allow_placeholder=True).dest_prefix == "r8.im/YOURACCOUNT/"
    with pytest.raises(ConfigError, match="put your account's name"):
        load(path)


def test_python_3_10_is_for_one_prediction_at_a_time(write):
    text = "[models.m]\nsource = 'hf:a/b'\ncog = {python = '3.10', concurrency = 1}\n"

    assert load(write(text)).models["m"].cog.python == "3.10"


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(write):
    project = load(write("\ufeff[models.m]\r\nsource = 'hf:a/b'\r\n[models.n]\r\nsource = 'hf:a/b'\r\n"))

    assert [model.line for model in project.models.values()] == [1, 3]


def test_the_example_works_and_so_does_everything_it_suggests(write, tmp_path):
    text = (REPOSITORY / "config.toml.example").read_text()
    assert list(load(write(text)).models) == ["smollm2-135m"]

    for name in ("my-finetune", "alpaca-delta"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    suggested = "\n".join(
        line.removeprefix("# ") if "=" in line or line.startswith("# [") else line for line in text.splitlines()
    ).replace("[defaults] holds", "# [defaults] holds")
    project = load(write(suggested), allow_placeholder=True)

    families = ["llama-3-1-8b--4bit", "phi-3-mini", "gemma-2-2b", "qwen2-7b--8bit", "mixtral-8x7b--4bit"]
    assert list(project.models) == ["smollm2-135m", *families, "my-finetune", "alpaca", "from-a-bucket"]
    bits = [quant and quant.bits for quant in (project.models[name].quant for name in families)]
    assert bits == [4, None, None, 8, 4]
    assert project.dest_prefix == "r8.im/YOURACCOUNT/"
