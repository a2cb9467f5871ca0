"""A good folder has no problem; each way to break it has exactly one, with a fix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cogsmith.workdir import lint

from .conftest import Workshop, safetensors_bytes

Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    workshop = Workshop(tmp_path_factory.mktemp("good"))
    workshop.add("tiny")
    workshop.build()
    return workshop.folder("tiny")


@pytest.fixture
def copy(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work directory of one's own to break."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    return shutil.copytree(good, tmp_path / "tiny")


def config(change: Callable[[dict], object]) -> Break:
    """Break cog.yaml by a change of its content."""

    def apply(folder: Path) -> None:
        content = yaml.safe_load((folder / "cog.yaml").read_text())
        change(content)
        (folder / "cog.yaml").write_text(yaml.safe_dump(content))

    return apply


def top(**values: object) -> Break:
    return config(lambda content: content.update(values))


def build(**values: object) -> Break:
    return config(lambda content: content["build"].update(values))


def without(key: str) -> Break:
    return config(lambda content: content["build"].pop(key))


def replace(file: str, old: str, new: str) -> Break:
    def apply(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return apply


def code(old: str, new: str) -> Break:
    return replace("predict.py", old, new)


def write(file: str, content: str | bytes = b"") -> Break:
    def apply(folder: Path) -> None:
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    return apply


def append(file: str, text: str) -> Break:
    def apply(folder: Path) -> None:
        (folder / file).write_text((folder / file).read_text() + text)

    return apply


def remove(file: str) -> Break:
    return lambda folder: (folder / file).unlink()


def both(*steps: Break) -> Break:
    def apply(folder: Path) -> None:
        for step in steps:
            step(folder)

    return apply


def vendored_base(package: str, files: dict[str, str]) -> Break:
    """Let Predictor derive from a class of a module in the folder."""
    old = "from cogsmith.predictor.runner import LanguageModel"
    return both(
        code(old, f"from {package} import LanguageModel"),
        *(write(path, content) for path, content in files.items()),
    )


INDEX = "checkpoints/model.safetensors.index.json"
BASE = "class LanguageModel:\n    def predict(self) -> str: ...\n"
TOKEN = "hf_" + "A1b2" * 9

CASES: dict[str, tuple[Break, str]] = {
    # cog.yaml
    "cog.yaml missing": (remove("cog.yaml"), "missing, empty or not a YAML mapping"),
    "cog.yaml no mapping": (write("cog.yaml", "- a\n"), "missing, empty or not a YAML mapping"),
    "cog.yaml no YAML": (write("cog.yaml", "build: ["), "missing, empty or not a YAML mapping"),
    "unknown key": (top(builds={}), "cog.yaml: builds: Cog does not know this key"),
    "unknown build key": (build(gpus=True), "cog.yaml: build.gpus: Cog does not know this key"),
    "gpu as text": (both(build(gpu="yes"), without("cuda")), "build.gpu: 'yes' is not true or false"),
    "cuda as number": (build(cuda=13.0), "build.cuda: 13.0 is not a string"),
    "python as number": (build(python_version=3.11), "build.python_version: 3.11 is not a string"),
    "system packages as text": (build(system_packages="git"), "build.system_packages: 'git' is not a list"),
    "build.run of numbers": (build(run=[3]), "build.run: [3] is not a list of commands"),
    "image as list": (top(image=["a"]), "image: ['a'] is not a string"),
    "environment of mappings": (top(environment=[{"A": "b"}]), "is not a list of NAME=value strings"),
    "no python": (without("python_version"), "build.python_version: missing"),
    "python 3.9": (build(python_version="3.9"), "older than Cog's minimum 3.10"),
    "python 3.10 with concurrency": (build(python_version="3.10"), "concurrency needs Python 3.11"),
    "python no version": (build(python_version="three"), "'three' is not a version"),
    "no run": (config(lambda content: content.pop("run")), "cog.yaml: run: missing"),
    "run without class": (top(run="predict.py"), "'predict.py' names no file and class"),
    "run of a missing file": (top(run="other.py:Predictor"), "other.py is not in this folder"),
    "run of a missing class": (top(run="predict.py:Runner"), "no class Runner at the top level"),
    "image and model": (top(image="a", model="b"), "stands beside model"),
    "weights without model": (top(weights=[]), "weights: needs model"),
    "concurrency in cog.yaml": (top(concurrency={"max": 2}), "concurrency: deprecated"),
    "train": (top(train="train.py:train"), "train: deprecated"),
    "python_packages": (build(python_packages=["a==1"]), "python_packages: deprecated"),
    "pre_install": (build(pre_install=["true"]), "pre_install: deprecated"),
    "gpu without cuda": (without("cuda"), "build.cuda: missing with gpu: true"),
    "cuda without gpu": (build(gpu=False), "build.cuda: set without gpu: true"),
    "cuda without minor": (build(cuda="13"), "'13' has no minor version"),
    "no requirements file": (build(python_requirements="r.txt"), "r.txt is not in this folder"),
    "reserved variable": (top(environment=["PYTHONPATH=/x"]), "PYTHONPATH is reserved"),
    "reserved prefix": (top(environment=["CUDA_VISIBLE_DEVICES=0"]), "CUDA_VISIBLE_DEVICES is reserved"),
    "variable with a space": (top(environment=["A=b c"]), "the value of A has a space"),
    "no assignment": (top(environment=["A"]), "an entry is not NAME=value"),
    # predict.py
    "syntax": (append("predict.py", "def ("), "not valid Python"),
    "run is an alias": (write("predict.py", "class Predictor:\n    run = other\n"), "no literal run()"),
    "class renamed": (code("class Predictor(", "class Runner("), "no class Predictor"),
    "class nested": (write("predict.py", "if True:\n    class Predictor: ...\n"), "no class Predictor"),
    "dotted Input": (code('str = Input(default="", d', 'str = cog.Input(default="", d'), "`cog.Input(…)` is not"),
    "positional default": (code('str = Input(default="", d', 'str = Input("", d'), "positional default"),
    "f-string": (code('description="Text to', 'description=f"Text to'), "computed"),
    "escape": (code("Text to continue", "Text\\tto continue"), "differently"),
    "computed default": (code("default=128", "default=2**7"), "computed"),
    "bound by name": (code("ge=-2.0,", "ge=TWO,"), "computed"),
    "unknown decorator": (code("@cog.streaming", "@cog.streaming\n    @cache"), "decorator @cache on run"),
    "max by name": (code("max=32", "max=MAX"), "max is not an integer literal"),
    "concurrent without async": (code("async def run", "def run"), "on a plain def"),
    "streaming a string": (code("-> ConcatenateIterator[str]", "-> str"), "returns no iterator"),
    "no return annotation": (code(" -> ConcatenateIterator[str]", ""), "no return annotation"),
    "unknown type": (code("messages: list[dict]", "messages: list[list[str]]"), "nests a list"),
    "star arguments": (code("        self,", "        self,\n        *rest: str,"), "*args, **kwargs"),
    "yield in async": (code("return self.stream(", "yield self.stream("), "`yield` in an async run"),
    "predict beside run": (append("predict.py", "\n    def predict(self) -> str: ...\n"), "a predict() beside run()"),
    "base with predict": (vendored_base("base", {"base.py": BASE}), "the base class defines predict()"),
    "base in __init__": (vendored_base("base", {"base/__init__.py": ""}), "whose __init__.py Cog does not read"),
    "base in a taken name": (vendored_base("torch.base", {"torch/base.py": ""}), "torch is the name of a package"),
    "schema missing": (remove(".cog/openapi_schema.json"), "not the schema of run()"),
    "schema outdated": (code("default=128", "default=129"), "not the schema of run()"),
    # requirements.txt
    "range": (append("requirements.txt", "einops>=0.8\n"), "einops is not pinned to one version"),
    "wildcard": (append("requirements.txt", "einops==0.8.*\n"), "einops is not pinned to one version"),
    "no version": (append("requirements.txt", "einops\n"), "einops is not pinned to one version"),
    "cog": (append("requirements.txt", "cog==0.23.1\n"), "cog is installed by Cog"),
    "coglet": (append("requirements.txt", "coglet==0.23.1\n"), "coglet is installed by Cog"),
    "url": (append("requirements.txt", "a @ https://example.com/a.whl\n"), "a has a link or a marker"),
    "marker": (append("requirements.txt", 'a==1; python_version > "3"\n'), "a has a link or a marker"),
    "editable": (append("requirements.txt", "-e .\n"), "not a package with a version"),
    "include": (append("requirements.txt", "-r other.txt\n"), "not a package with a version"),
    "path": (append("requirements.txt", "./a.whl\n"), "not a package with a version"),
    "twice": (append("requirements.txt", "Torch==2.13.0\n"), "torch is listed twice"),
    # model.json, push, .dockerignore
    "no manifest": (remove("model.json"), "model.json: missing"),
    "manifest no JSON": (write("model.json", "{"), "model.json: "),
    "weights outside": (replace("model.json", '"checkpoints"', '"../other"'), "checkpoint '../other' is outside"),
    "manifest with a typo": (replace("model.json", '"engine"', '"engines"'), "unknown field `engines`"),
    "no push": (remove("push"), "push: missing"),
    "push not executable": (lambda folder: (folder / "push").chmod(0o644), "push: not executable"),
    "weights ignored": (append(".dockerignore", "checkpoints/\n"), "keeps checkpoints/config.json out"),
    "weights ignored by suffix": (append(".dockerignore", "**/*.safetensors\n"), "keeps checkpoints/model.safetensors"),
    "code ignored": (append(".dockerignore", "/cogsmith\n"), "keeps cogsmith/__init__.py out"),
    "manifest ignored": (append(".dockerignore", "*.json\n"), "keeps model.json out"),
    # checkpoints/
    "no checkpoint": (lambda folder: shutil.rmtree(folder / "checkpoints"), "checkpoints: missing"),
    "code among weights": (write("checkpoints/sub/modeling.py"), "drops --separate-weights silently"),
    "notebook among weights": (write("checkpoints/a.ipynb"), "drops --separate-weights silently"),
    "pickle": (write("checkpoints/pytorch_model.bin"), "a pickle"),
    "link": (
        lambda folder: (folder / "checkpoints/link.json").symlink_to("config.json"),
        "checkpoints/link.json: a symbolic link",
    ),
    "no config": (remove("checkpoints/config.json"), "config.json is missing"),
    "no weights": (remove("checkpoints/model.safetensors"), "holds no weights"),
    "cut weights": (
        lambda folder: (folder / "checkpoints/model.safetensors").write_bytes(safetensors_bytes(a=9)[:-1]),
        "not a sound safetensors file",
    ),
    "index no JSON": (write(INDEX, "{"), "not an index of tensors"),
    "index without its file": (
        write(INDEX, json.dumps({"weight_map": {"a": "model-2.safetensors"}})),
        "names model-2.safetensors, which is missing",
    ),
    "index of a tensor that is not there": (
        write(INDEX, json.dumps({"weight_map": {"a": "model.safetensors", "z": "model.safetensors"}})),
        "model.safetensors lacks tensor z",
    ),
    # secrets
    "Hugging Face token": (append("README.md", TOKEN), "README.md: holds a Hugging Face token"),
    "Replicate token": (append("cog.yaml", "# r8_" + "A" * 37), "cog.yaml: holds a Replicate token"),
    "short Replicate token": (append("cog.yaml", "# r8_" + "A" * 20), "cog.yaml: holds a Replicate token"),
    "token within a word": (append("cog.yaml", f"# my_{TOKEN}"), "cog.yaml: holds a Hugging Face token"),
    "AWS key": (write("cogsmith/notes.txt", "AKIA" + "A" * 16), "cogsmith/notes.txt: holds an AWS access key"),
    "private key": (write("key.pem", "-----BEGIN RSA PRIVATE KEY-----\n"), "key.pem: holds a private key"),
}


def test_a_fresh_folder_is_clean(copy: Path):
    assert lint.check(copy) == []


@pytest.mark.parametrize("name", CASES)
def test_each_rule(copy: Path, name: str):
    breaks, words = CASES[name]
    breaks(copy)
    problems = lint.check(copy)
    assert len(problems) == 1, [str(problem) for problem in problems]
    assert words in f"{problems[0].where}: {problems[0].message}"
    assert problems[0].fix


def test_run_and_predict_together(copy: Path):
    top(predict="predict.py:Predictor")(copy)
    assert {problem.message for problem in lint.check(copy)} == {
        "deprecated in Cog",
        "stands beside predict, which Cog refuses",
    }


def test_all_areas_report_at_once(copy: Path):
    for name in ("gpu without cuda", "computed default", "cog", "push not executable", "pickle", "AWS key"):
        CASES[name][0](copy)
    assert len(lint.check(copy)) == 6


def test_secrets_of_the_environment_are_found_and_never_shown(copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "swordfish-1234")
    monkeypatch.setenv("REPLICATE_API_TOKEN", "x")
    append("model.json", "\n\n")(copy)
    replace("model.json", '"model_args": {}', '"model_args": {"token": "swordfish-1234"}')(copy)
    append("README.md", TOKEN)(copy)
    problems = lint.check(copy)
    assert [problem.message for problem in problems] == [
        "holds a Hugging Face token",
        "holds the value of HF_TOKEN",
    ]
    shown = " ".join(map(str, problems))
    assert "swordfish" not in shown
    assert TOKEN not in shown


def test_a_schema_rewritten_by_cog_itself_is_no_problem(copy: Path):
    path = copy / ".cog/openapi_schema.json"
    content = json.loads(path.read_text())
    content["info"]["version"] = "9.9.9"
    path.write_text(json.dumps(content))
    assert lint.check(copy) == []


@pytest.mark.parametrize("lines", ["checkpoints\n!checkpoints\n", "# checkpoints\n", "**/*.log\n", "check*points/x\n"])
def test_patterns_that_keep_all_that_is_needed(copy: Path, lines: str):
    append(".dockerignore", lines)(copy)
    assert lint.check(copy) == []


@pytest.mark.parametrize("file", ["cog.yaml", "predict.py", "requirements.txt", "model.json", ".dockerignore", INDEX])
def test_binary_rubbish_is_no_crash(copy: Path, file: str):
    write(file, b"\x00\xff\xfe{[: @")(copy)
    assert file == ".dockerignore" or lint.check(copy)


def test_an_empty_folder_is_a_list_of_problems_and_no_crash(tmp_path: Path):
    assert {problem.where for problem in lint.check(tmp_path)} == {"cog.yaml", "model.json", "push", "checkpoints"}
