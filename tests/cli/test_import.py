"""`cogsmith import` as a user runs it, and `output.uri` of a build: folders, and a real S3 server on loopback."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ..engine.own_models import FLAT, flat
from ..sources.composer.runs import FILE, RUN, SHARDED, assert_same, source
from ..sources.stores.conftest import running_s3  # noqa: F401 (a fixture)

# What from_pretrained makes of a folder, in a process that knows the folder alone.
LOAD = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=sys.argv[2] == "trusted")
print(type(model).__name__)
print(model(torch.tensor([[1, 2, 3]])).logits.double().sum().item())
"""


@pytest.fixture
def s3(running_s3, project):  # noqa: F811
    """The server, the project's account there, and a bucket of its own."""
    project.environment |= running_s3.environment
    running_s3.begin_bucket()
    return running_s3


@pytest.fixture
def tiny(project):
    """A whole small model in the project's folder `tiny`, in two shards with an index."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape))
    model.save_pretrained(project.root / "tiny", max_shard_size="12KB")
    assert (project.root / "tiny/model.safetensors.index.json").is_file()
    return model


def succeeds(project, *arguments):
    result = project.run(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def fails(project, *arguments):
    result = project.run(*arguments)
    assert result.returncode == 1, (result.stdout, result.stderr)
    return result.stderr


def stored(s3, prefix):
    found = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix=prefix).get("Contents", [])
    keys = [entry["Key"] for entry in found]
    return {key: s3.client.get_object(Bucket=s3.bucket, Key=key)["Body"].read() for key in keys}


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_weights(folder, model):
    loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    return loaded.keys() == model.state_dict().keys() and all(
        torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items()
    )


def test_a_folder_becomes_a_folder_without_copying(project, tiny):
    said = json.loads(succeeds(project, "import", "tiny", "out/model", "--json"))
    made = project.root / "out/model"
    assert content(made) == content(project.root / "tiny")
    assert said["destination"] == str(made)
    assert said["files"] == {path: len(data) for path, data in content(made).items()}
    assert said["format"] == "hf"
    weights = next((project.root / "tiny").glob("*.safetensors"))
    assert (made / weights.name).stat().st_ino == weights.stat().st_ino


@pytest.mark.slow
def test_bin_holds_the_same_weights(project, tiny):
    succeeds(project, "import", "tiny", "out", "--bin")
    made = project.root / "out"
    assert sorted(path.name for path in made.iterdir()) == [
        "config.json",
        "generation_config.json",
        "pytorch_model.bin",
    ]
    assert same_weights(made, tiny)
    assert torch.load(made / "pytorch_model.bin", weights_only=True).keys() == tiny.state_dict().keys()


@pytest.mark.slow
def test_to_a_store_and_back(project, tiny, s3):
    said = succeeds(project, "import", "tiny", f"s3://{s3.bucket}/models/tiny")
    assert f"s3://{s3.bucket}/models/tiny/config.json" in said
    assert {key.removeprefix("models/tiny/"): data for key, data in stored(s3, "models/").items()} == content(
        project.root / "tiny"
    )
    succeeds(project, "import", f"s3://{s3.bucket}/models/tiny", "back", "--source-cache", "downloads")
    assert content(project.root / "back") == content(project.root / "tiny")
    kept = {path.name for path in (project.root / "downloads").rglob("[!.]*") if path.is_file()}
    assert kept == content(project.root / "tiny").keys()
    s3.forget()
    succeeds(project, "import", f"s3://{s3.bucket}/models/tiny", "again", "--source-cache", "downloads")
    assert s3.object_gets() == []
    assert same_weights(project.root / "again", tiny)


@pytest.mark.slow
def test_what_is_there_is_replaced_with_force_only(project, tiny):
    project.write("out/notes.txt", "mine")
    message = fails(project, "import", "tiny", "out")
    assert "is not empty: there are notes.txt" in message
    assert "--force" in message
    assert content(project.root / "out") == {"notes.txt": b"mine"}
    succeeds(project, "import", "tiny", "out", "--force")
    assert content(project.root / "out") == content(project.root / "tiny")


@pytest.mark.slow
def test_what_is_in_a_store_is_replaced_with_force_only(project, tiny, s3):
    s3.client.put_object(Bucket=s3.bucket, Key="out/model.safetensors", Body=b"old")
    assert "is not empty: there are model.safetensors" in fails(project, "import", "tiny", f"s3://{s3.bucket}/out")
    assert stored(s3, "") == {"out/model.safetensors": b"old"}
    succeeds(project, "import", "tiny", f"s3://{s3.bucket}/out", "--force")
    assert stored(s3, "") == {f"out/{path}": data for path, data in content(project.root / "tiny").items()}


def test_an_empty_folder_may_be_there(project, tiny):
    (project.root / "out").mkdir()
    succeeds(project, "import", "tiny", "out")
    assert same_weights(project.root / "out", tiny)


@pytest.mark.parametrize("dst", ["tiny", ".", "tiny/.."])
def test_nothing_that_is_read_is_written_over(project, tiny, dst):
    before = content(project.root)
    assert "would replace" in fails(project, "import", "tiny", dst, "--force")
    assert content(project.root) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny", "https://example.com/out"), "nothing can be written to"),
        (("tiny", "hf:me/model"), "nothing can be written to"),
        (("nothing-there", "out"), "does not exist"),
        (("ftp://host/x", "out"), "is not a source that this version knows"),
        (("tiny", "out", "--llama-type", "llama", "--format", "hf"), "has no use for: llama_type"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(project, tiny, arguments, message):
    assert message in fails(project, "import", *arguments)
    assert not (project.root / "out").exists()


def test_an_unknown_format_is_a_usage_error(project, tiny):
    assert project.run("import", "tiny", "out", "--format", "onnx").returncode == 2


def test_half_of_a_models_code_is_a_usage_error(project, tiny):
    result = project.run("import", "tiny", "out", "--code-path", "x.py")
    assert result.returncode == 2
    assert "--code-model-type" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [RUN, SHARDED])
def test_a_composer_run_in_a_store_by_its_link(project, s3, name, tmp_path):
    folder = source(name, tmp_path)
    for path, data in content(folder).items():
        s3.client.put_object(Bucket=s3.bucket, Key=f"runs/mine/{path}", Body=data)
    meant = FILE if name == RUN else next(path.parent for path in folder.rglob(".metadata")).relative_to(folder)
    link = f"runs/mine/{meant}".removesuffix("/.").encode()
    s3.client.put_object(Bucket=s3.bucket, Key="runs/latest-rank0.pt.symlink", Body=link)
    succeeds(
        project, "import", f"s3://{s3.bucket}/runs/latest-rank0.pt", f"s3://{s3.bucket}/hf", "--format", "composer"
    )
    for path, data in stored(s3, "hf/").items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    assert_same(tmp_path / "hf", name)


@pytest.mark.slow
def test_a_folder_with_its_own_code_loads_where_that_is_trusted_only(project):
    model = flat()
    model.save_pretrained(project.root / "mine")
    config = json.loads((project.root / "mine/config.json").read_text())
    config.pop("auto_map", None)
    project.write("mine/config.json", json.dumps(config))
    options = ["--code-model-type", config["model_type"], "--code-config", "FlatConfig", "--code-model", "FlatLM"]
    succeeds(project, "import", "mine", "out", "--code-path", str(FLAT / "flat.py"), *options)
    loaded = project.run_python("-c", LOAD, "out", "trusted")
    assert loaded.returncode == 0, loaded.stderr
    name, total = loaded.stdout.split()
    assert name == "FlatLM"
    with torch.no_grad():
        expected = model(torch.tensor([[1, 2, 3]])).logits.double().sum().item()
    assert float(total) == pytest.approx(expected, abs=1e-3)
    assert project.run_python("-c", LOAD, "out", "untrusted").returncode != 0


@pytest.mark.slow
def test_a_build_also_puts_its_folder_elsewhere_once(project, tiny, s3):
    project.write(
        "config.toml", f'[models.tiny]\nsource = "./tiny"\noutput.uri = "s3://{s3.bucket}/out"\ncog.gpu = false\n'
    )
    assert f"s3://{s3.bucket}/out  put there too" in succeeds(project, "build")
    expected = {f"out/{path}": data for path, data in content(project.root / "work/tiny/checkpoints").items()}
    assert stored(s3, "") == expected
    s3.forget()
    assert "put there too" not in succeeds(project, "build")
    assert {request.method for request in s3.log} <= {"GET", "HEAD"}
    assert s3.object_gets() == []
    s3.client.delete_object(Bucket=s3.bucket, Key="out/config.json")
    assert "is not empty" in fails(project, "build")


@pytest.mark.slow
def test_a_build_does_nothing_where_its_output_is_in_the_way(project, tiny):
    project.write("out/notes.txt", "mine")
    project.write("config.toml", '[models.tiny]\nsource = "./tiny"\noutput.uri = "out"\n')
    assert "out is not empty" in fails(project, "build")
    assert not (project.root / "work/tiny").exists()
    project.write("config.toml", '[models.tiny]\nsource = "./tiny"\noutput.uri = "out"\noutput.force = true\n')
    succeeds(project, "build")
    assert same_weights(project.root / "out", tiny)


@pytest.mark.slow
def test_other_weights_need_force_to_replace_the_last_builds(project, tiny):
    project.write("config.toml", '[models.tiny]\nsource = "./tiny"\noutput.uri = "out"\noutput.format = "bin"\n')
    succeeds(project, "build")
    assert same_weights(project.root / "out", tiny)
    made = content(project.root / "work/tiny")
    (project.root / "tiny/generation_config.json").unlink()  # a link to the same bytes is in the work directory
    project.write("tiny/generation_config.json", "{}")
    assert "out is not empty" in fails(project, "build")
    assert content(project.root / "work/tiny") == made
