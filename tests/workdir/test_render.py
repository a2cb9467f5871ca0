"""Rendering: what varies lands where it belongs, quoted for where it lands."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest
import yaml

import cogsmith
from cogsmith import manifest
from cogsmith.config.model import CogSettings, Model, Project
from cogsmith.manifest import Limits
from cogsmith.quant import Quant
from cogsmith.workdir import signature
from cogsmith.workdir.render import digest, render, templates_folder

URI = "hf:org/repo@" + "a" * 40


def project(prefix: str | None = None) -> Project:
    return Project(Path("/somewhere/config.toml"), prefix, {})


def rendered(prefix: str | None = None, **settings: object) -> dict[str, str]:
    files = render(Model("tiny-1", "hf:org/repo", **settings), URI, project(prefix))
    return {path: file.content.decode() for path, file in files.items()}


def test_gpu_and_cpu():
    gpu = yaml.safe_load(rendered()["cog.yaml"])
    assert gpu["build"] == {
        "gpu": True,
        "cuda": "13.0",
        "python_version": "3.11",
        "python_requirements": "requirements.txt",
        "sdk_version": "0.23.1",
    }
    cpu = yaml.safe_load(rendered(cog=CogSettings(gpu=False))["cog.yaml"])
    assert cpu["build"] == {key: value for key, value in gpu["build"].items() if key != "cuda"} | {"gpu": False}
    assert cpu["run"] == "predict.py:Predictor"
    assert cpu["environment"] == ["HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1"]


@pytest.mark.parametrize(
    "value", ["libsndfile1", "a: b # c", '"quoted"\\', "line\nbreak", "- x", "äé😀\x85", "{{ name }}"]
)
def test_every_string_survives_yaml(value):
    config = yaml.safe_load(rendered(cog=CogSettings(system_packages=(value,), python=value))["cog.yaml"])
    assert config["build"]["system_packages"] == [value]
    assert config["build"]["python_version"] == value


@pytest.mark.parametrize("prefix", ["r8.im/me/", "$(touch x)/", "a'b/", 'a"b/', "a b/", "`id`/", "a\nb/"])
def test_every_prefix_survives_the_shell(prefix, tmp_path):
    line = rendered(prefix)["push"].partition("IMAGE=")[2].partition("\n\nfail()")[0]
    shown = subprocess.run(
        ["sh", "-c", f'IMAGE={line}\nprintf %s "$IMAGE"'], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert shown.stdout == f"{prefix}tiny-1"
    assert list(tmp_path.iterdir()) == []


def test_predictor_varies_by_the_concurrency_alone():
    hostile = {"a": "'''\n\"\"\"{{ 7 * 7 }}", "load_in_4bit": True}
    plain = rendered(cog=CogSettings(concurrency=4))["predict.py"]
    other = rendered(cog=CogSettings(concurrency=9, python="3.12"), model_args=hostile, requirements=("x==1",))
    assert other["predict.py"] == plain.replace("max=4", "max=9")
    assert json.loads(other["model.json"])["model_args"] == hostile


def test_both_predictors_offer_the_same_inputs_and_hand_on_each():
    runs = {}
    for concurrency in (1, 32):
        text = rendered(cog=CogSettings(concurrency=concurrency))["predict.py"]
        run = runs[concurrency] = signature.read(text)
        (call,) = [node for node in ast.walk(ast.parse(text)) if _calls_stream(node)]
        assert [keyword.arg for keyword in call.keywords] == [item.name for item in run.inputs]
        assert all(keyword.arg == keyword.value.id for keyword in call.keywords)
    assert runs[1].inputs == runs[32].inputs
    assert (runs[1].is_async, runs[1].streaming, runs[1].concurrency) == (False, True, 1)
    assert (runs[32].is_async, runs[32].streaming, runs[32].concurrency) == (True, True, 32)


def _calls_stream(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "stream"


def test_manifest_says_what_is_served(tmp_path):
    limits = Limits(max_batch_size=3)
    text = rendered(limits=limits, model_args={"dtype": "bfloat16"}, cog=CogSettings(concurrency=5))["model.json"]
    (tmp_path / "model.json").write_text(text)
    found = manifest.read(tmp_path)
    assert (found.name, found.source, found.concurrency, found.limits) == ("tiny-1", URI, 5, limits)
    assert found.model_args == {"dtype": "bfloat16"}
    assert found.cogsmith == cogsmith.__version__


def test_only_what_travels_is_copied():
    files = rendered()
    package = Path(cogsmith.__file__).parent
    copied = {path for path in files if path.startswith("cogsmith/")}
    assert {path.split("/")[1] for path in copied} == {
        "__init__.py",
        "data_uris.py",
        "detokenize.py",
        "errors.py",
        "heads.py",
        "manifest.py",
        "quant.py",
        "engine",
        "lmtp",
        "predictor",
        "prompts",
    }
    assert all(files[path] == (package.parent / path).read_text(encoding="utf-8") for path in copied)
    assert {Path(path).suffix for path in copied} == {".py", ".jinja"}


def test_same_inputs_same_digest_and_every_input_counts():
    def of(prefix: str | None = None, **settings: object) -> str:
        return digest(render(Model("tiny", "hf:org/repo", **settings), URI, project(prefix)))

    assert of() == of()
    variants = [
        of(),
        of("r8.im/x/"),
        of(model_args={"a": 1}),
        of(limits=Limits(max_queue=1)),
        of(requirements=("x==1",)),
        of(quant=Quant(bits=4)),
        of(quant=Quant(bits=4, at="load")),
    ]
    assert len(set(variants)) == len(variants)


def test_every_template_is_used():
    rendered_names = {"cog.yaml", "predict.py", "requirements.txt", "push", ".dockerignore", "README.md"}
    templates = {path.name for path in templates_folder().iterdir()} - {"config.toml.example"}
    assert templates == rendered_names - {".dockerignore"} | {"dockerignore", "predict_base.py", "predict_encoder.py"}
    assert rendered_names <= rendered().keys()


@pytest.mark.parametrize("task", ["encoder", "decoder"])
def test_a_model_that_gives_vectors_has_a_predictor_of_its_own(task: str):
    files = rendered(task=task)
    run = signature.read(files["predict.py"])
    assert {"texts", "text", "layers", "pooling", "normalize", "padding_side"} <= {item.name for item in run.inputs}
    assert (run.concurrency, run.streaming) == (32, True)
    assert json.loads(files["model.json"])["task"] == task
    assert 'cog run -i text="' in files["README.md"]
    assert "prompt" not in files["README.md"]
