"""From names on the command line to work directories."""

import pytest

from cogsmith import manifest
from cogsmith.errors import ProblemsError, SourceError, UserError
from cogsmith.gateway.open_model import open_models
from cogsmith.sources.silent import Silent

from ..sources.checkpoints import NEEDED, safetensors


def write_checkpoint(folder):
    for name, content in NEEDED.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project's folder, with two work directories, in which the user stands."""
    root = tmp_path / "project"
    for name in ("two", "one"):
        (root / "work" / name).mkdir(parents=True)
        (root / "work" / name / "cog.yaml").write_text("")
    monkeypatch.chdir(root)
    return root


def opened(root, *names, cache=None):
    return open_models(names, root=root, reporter=Silent(), cache=cache)


def test_no_name_means_every_work_directory(root):
    assert opened(root) == [root / "work/one", root / "work/two"]


def test_a_work_directory_is_found_by_name_and_by_path(root):
    assert opened(root, "two", "work/one") == [root / "work/two", root / "work/one"]


def test_nothing_to_serve_is_said(tmp_path):
    with pytest.raises(UserError, match=r"nothing to serve(?s:.*)run ./build"):
        opened(tmp_path)


def test_every_bad_name_is_said_before_anything_is_built(root, tmp_path):
    (root / "config.toml").write_text('[models.later]\nsource = "hf:gpt2"\n')
    with pytest.raises(ProblemsError) as caught:
        opened(root, "one", "one", "./tow", "later", str(write_checkpoint(tmp_path / "good")), cache=tmp_path / "cache")
    repeated, nowhere, unbuilt = map(str, caught.value.problems)
    assert "'one' is named 2 times" in repeated
    assert "'./tow' is no work directory, no checkpoint folder and no repository" in nowhere
    assert "'later' of config.toml is not built yet" in unbuilt
    assert "run ./build later" in unbuilt
    assert not (tmp_path / "cache").exists()


def test_a_checkpoint_folder_is_built_once_and_served_under_its_name(root, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "My Model")
    (folder,) = opened(root, str(checkpoint), cache=tmp_path / "cache")
    assert folder.is_relative_to(tmp_path / "cache")
    assert manifest.read(folder).name == "my-model"
    assert (folder / "checkpoints/model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    before = (folder / "model.json").stat()
    assert opened(root, str(checkpoint), cache=tmp_path / "cache") == [folder]
    assert (folder / "model.json").stat().st_ino == before.st_ino


def test_a_checkpoint_that_changed_is_built_again(root, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "model")
    opened(root, str(checkpoint), cache=tmp_path / "cache")
    (checkpoint / "model.safetensors").write_bytes(safetensors(a=(8, 8)))
    (folder,) = opened(root, str(checkpoint), cache=tmp_path / "cache")
    assert (folder / "checkpoints/model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()


def test_two_folders_of_one_name_do_not_share_a_build(root, tmp_path):
    one, other = write_checkpoint(tmp_path / "a/model"), write_checkpoint(tmp_path / "b/model")
    assert len(set(opened(root, str(one), str(other), cache=tmp_path / "cache"))) == 2


@pytest.mark.parametrize("repo", ["org/Tiny-1.5B", "tiny-model"])
def test_a_repository_is_fetched_and_served_under_its_last_name(root, tmp_path, fake_hub, repo):
    fake_hub.commit(repo, NEEDED)
    (folder,) = opened(root, repo, cache=tmp_path / "cache")
    assert manifest.read(folder).name == repo.rpartition("/")[2].lower()
    assert manifest.read(folder).source.startswith(f"hf:{repo}")


def test_a_name_that_is_nowhere_is_answered_with_what_is_near(root, tmp_path, fake_hub):
    with pytest.raises(SourceError, match=r"'onne' is no work directory, and hf:onne(?s:.*)did you mean 'one'\?"):
        opened(root, "onne", cache=tmp_path / "cache")
