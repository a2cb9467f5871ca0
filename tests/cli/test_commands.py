"""What a user sees: exit codes, messages, what goes to stdout and what to stderr."""

import json
import os

import pytest
from transformers import AutoConfig, AutoModelForCausalLM


@pytest.fixture
def project(bare_project):
    return bare_project


def test_without_a_config_the_message_says_how_to_get_one(project):
    (project.root / "config.toml").unlink()
    result = project.run("build")
    assert result.returncode == 1
    assert "cp config.toml.example config.toml" in result.stderr
    assert result.stdout == ""


def test_every_problem_is_listed_with_its_line_and_nothing_is_written(project):
    project.write(
        "config.toml", 'dest_prefix = "r8.im/YOURACCOUNT/"\n[models."../x"]\nsource = "./gone"\nfrmat = "hf"\n'
    )
    result = project.run("build")
    assert result.returncode == 1
    for words in ("line 1", "YOURACCOUNT", "../x", "line 3", "gone", "line 4", "frmat", "format"):
        assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not (project.root / "work").exists()
    assert not (project.root / "cogsmith.lock").exists()


def test_weights_that_cannot_be_had_come_together_with_their_lines(project):
    (project.root / "empty").mkdir()
    project.write("config.toml", '[models.a]\nsource = "./empty"\n\n[models.b]\nsource = "./empty"\n')
    result = project.run("build")
    assert result.returncode == 1
    assert "line 1: models.a: " in result.stderr
    assert "line 4: models.b: " in result.stderr
    assert not (project.root / "work").exists()


def test_a_build_says_what_it_made_and_a_second_one_that_nothing_changed(project):
    first, second = project.run("build"), project.run("build", "tiny")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stdout.startswith("work/tiny  built")
    assert second.stdout == "work/tiny  unchanged\n"
    assert (project.root / "work/tiny/checkpoints/model.safetensors").exists()


@pytest.mark.slow
def test_a_build_keeps_the_tree_of_modules_and_does_not_miss_it(project_with_engine):
    project = project_with_engine
    assert project.run("build").returncode == 0
    tree = project.root / "work/tiny/model.txt"
    config = AutoConfig.from_pretrained(project.root / "checkpoint")
    assert tree.read_text() == f"{AutoModelForCausalLM.from_config(config)}\n"
    assert project.run("build").stdout == "work/tiny  unchanged\n"
    tree.unlink()
    assert project.run("build").stdout == "work/tiny  unchanged\n"
    shown = project.run("inspect", "checkpoint", "--tree").stdout
    assert str(AutoModelForCausalLM.from_config(config)) in shown


def test_a_plan_is_machine_readable_and_writes_nothing(project):
    result = project.run("build", "--plan", "--json")
    (plan,) = json.loads(result.stdout)
    assert (plan["model"], plan["state"], plan["parameters"]) == ("tiny", "new", 64 * 16)
    assert plan["bytes_to_fetch"] == 0
    assert plan["image_bytes"] > 64 * 16 * 4
    assert not (project.root / "work").exists()


def test_a_plan_for_people_names_the_model_and_the_changes(project):
    assert project.run("build").returncode == 0
    (project.root / "work/tiny/push").unlink()
    result = project.run("build", "--plan")
    assert "tiny" in result.stdout
    assert "push is missing" in result.stdout


def test_a_reader_that_has_enough_is_no_error(project):
    """As `cogsmith build --plan | head -0` would."""
    read, write = os.pipe()
    os.close(read)
    try:
        result = project.run("build", "--plan", stdout=write)
    finally:
        os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


def test_what_stands_between_colons_is_printed_as_it_is(project):
    assert "no work directory 'a:key:b'" in project.run("inspect", "a:key:b").stderr


def test_a_plan_never_cuts_a_name(project):
    name = "meta-llama-3.1-70b-instruct--4bit--with-a-long-name"
    project.write("config.toml", f'[models."{name}"]\nsource = "./checkpoint"\n')
    assert project.run("build", "--plan").stdout.splitlines()[1].startswith(f"{name} ")


def test_an_unknown_model_is_answered_with_the_nearest(project):
    result = project.run("build", "tinny")
    assert result.returncode == 1
    assert "did you mean 'tiny'" in result.stderr


def test_frozen_refuses_without_a_lock(project):
    result = project.run("build", "--frozen")
    assert result.returncode == 1
    assert "cogsmith.lock" in result.stderr
    assert not (project.root / "work" / "tiny").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["sing"],
        ["build", "--sing"],
        ["build", "--demo", "tiny"],
        ["build", "--demo", "--plan"],
        ["build", "--plan", "--frozen"],
        ["predict", "tiny"],
        ["predict", "tiny", "--prompt", "x", "--json", "-"],
        ["predict", "tiny", "--save", "x"],
        ["serve", "--dtype"],
        ["serve", "--prot", "80"],
    ],
)
def test_wrong_usage_exits_with_2(project, arguments):
    result = project.run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert not (project.root / "work").exists()


@pytest.mark.parametrize(("text", "words"), [("[1]", "- holds a list"), ("{", "- cannot be read as JSON")])
def test_predict_refuses_inputs_that_are_no_object(project, text, words):
    assert project.run("build").returncode == 0
    result = project.run("predict", "tiny", "--json", "-", input=text)
    assert result.returncode == 1
    assert words in result.stderr
    assert 'write an object, such as {"prompt": "Hi"}' in result.stderr


@pytest.mark.parametrize("command", ["serve", "inspect", "push", "check"])
def test_a_missing_work_directory_is_answered_with_what_there_is(project, command):
    assert project.run("build").returncode == 0
    result = project.run(command, "tony")
    assert result.returncode == 1
    assert "'tony'" in result.stderr
    assert "did you mean 'tiny'" in result.stderr


def test_check_passes_a_fresh_build_and_names_what_was_broken(project):
    assert project.run("build").returncode == 0
    fine = project.run("check")
    assert fine.returncode == 0, fine.stdout
    assert "work/tiny: ok" in fine.stdout
    project.write("work/tiny/checkpoints/modeling.py", "import os\n")
    project.write("work/tiny/requirements.txt", "torch\n")
    broken = project.run("check", "tiny")
    assert broken.returncode == 1
    assert "modeling.py" in broken.stdout
    assert "requirements.txt" in broken.stdout
    assert "fix:" in broken.stdout


def test_check_can_build_a_broken_folder_again(project):
    assert project.run("build").returncode == 0
    project.write("work/tiny/requirements.txt", "torch\n")
    fixed = project.run("check", "--fix")
    assert fixed.returncode == 0, fixed.stderr
    assert "requirements.txt" in fixed.stdout
    assert fixed.stdout.rstrip().endswith("work/tiny: ok")
    assert "torch==" in (project.root / "work/tiny/requirements.txt").read_text()


def test_check_reports_the_configs_problems_too(project):
    project.write("config.toml", "[models.tiny]\nsource = 3\n")
    result = project.run("check")
    assert result.returncode == 1
    assert "line 2" in result.stdout


def test_check_looks_beside_the_config_that_is_named(project):
    assert project.run("build").returncode == 0
    project.root /= "checkpoint"
    assert project.run("check", "tiny", "--config", "../config.toml").returncode == 0
    (project.root / "../work/tiny/push").unlink()
    result = project.run("check", "--config", "../config.toml")
    assert result.returncode == 1
    assert "push: missing" in result.stdout


def test_a_dry_push_checks_and_pushes_nothing(project):
    project.write("config.toml", 'dest_prefix = "r8.im/me/"\n[models.tiny]\nsource = "./checkpoint"\n')
    assert project.run("build").returncode == 0
    result = project.run("push", "tiny", "--dry-run", "--no-cache")
    assert result.returncode == 0
    assert "would run ./push --no-cache" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_push_finds_that_there_is_nowhere_to_push(project, arguments):
    """The config names no account, so the image has nowhere to go."""
    assert project.run("build").returncode == 0
    project.write("bin/cog", "#!/bin/sh\nexit 0\n")
    (project.root / "bin/cog").chmod(0o755)
    project.environment["PATH"] = f"{project.root}/bin:{project.environment['PATH']}"
    result = project.run("push", "tiny", *arguments)
    assert result.returncode == 1
    assert "work/tiny has no destination" in result.stderr
    assert "dest_prefix" in result.stderr


def test_the_light_path_never_imports_torch(project_with_engine):
    """Neither torch nor transformers: a machine that only packages need not have them."""
    project = project_with_engine
    code = (
        "import sys; sys.argv = ['cogsmith', 'build']\n"
        "from cogsmith.cli.main import app\n"
        "app(standalone_mode=False)\n"
        "loaded = {'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'imported: {loaded}' if loaded else 0)\n"
    )
    result = project.run_python("-c", code)
    assert result.returncode == 0, result.stderr
    assert (project.root / "work/tiny/cog.yaml").exists()


def test_the_version_is_printed(project):
    assert project.run("--version").stdout.strip() == "0.1.0"
