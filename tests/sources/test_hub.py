"""HubLocation and HfFolderSource against a real HTTP server that stands for the Hub."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import huggingface_hub.constants
import pytest

from cogsmith.errors import SourceError
from cogsmith.sources.hf_folder import HfFolderSource
from cogsmith.sources.hub import HubLocation, hub_cache
from cogsmith.sources.hub_errors import Asked, explain

from .checkpoints import CONFIG, NEEDED, UNNEEDED, Watcher, safetensors, to_json
from .fake_hub import FakeHub

TOKEN = "hf_secretsecretsecret"


def build(tmp_path: Path, revision: str | None = None, repo: str = "org/model", **options: bool):
    """Resolve and materialise; return the source's answer, its files' bytes, and the watcher."""
    source = HfFolderSource(HubLocation(repo, revision), tmp_path / "cache", **options)
    watcher = Watcher()
    resolved = source.resolve()
    checkpoint = source.materialise(resolved, watcher)
    return resolved, {file.path: file.origin.read_bytes() for file in checkpoint.files}, watcher


def test_fetches_exactly_the_needed_files(fake_hub: FakeHub, tmp_path: Path):
    sha = fake_hub.commit("org/model", NEEDED | UNNEEDED)
    resolved, content, watcher = build(tmp_path)
    assert content == NEEDED
    assert fake_hub.fetched() == set(NEEDED)
    assert (resolved.uri, resolved.revision, resolved.format) == ("hf:org/model", sha, "hf")
    assert resolved.checkpoint_bytes == sum(map(len, NEEDED.values()))
    assert resolved.parameters == 40
    assert watcher.done == watcher.totals[0] == sum(map(len, NEEDED.values())) - len(CONFIG)


def test_checkpoint_names_real_files_and_their_digests(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/model", NEEDED)
    source = HfFolderSource(HubLocation("org/model"), tmp_path / "cache")
    for file in source.materialise(source.resolve(), Watcher()).files:
        assert not file.origin.is_symlink()
        assert file.sha256 == hashlib.sha256(NEEDED[file.path]).hexdigest()
        assert file.size == len(NEEDED[file.path])


def test_resolving_moves_no_weights(fake_hub: FakeHub, tmp_path: Path):
    big = {**NEEDED, "model.safetensors": safetensors(a=(300_000,))}
    fake_hub.commit("org/model", big)
    resolved = HfFolderSource(HubLocation("org/model"), tmp_path / "cache").resolve()
    assert resolved.parameters == 300_000
    assert fake_hub.sent["model.safetensors"] <= 100_001
    assert resolved.bytes_to_fetch == sum(map(len, big.values()))


def test_second_build_moves_nothing(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/model", NEEDED)
    build(tmp_path)
    fake_hub.sent.clear()
    resolved, content, watcher = build(tmp_path)
    assert content == NEEDED
    assert not fake_hub.fetched()
    assert resolved.bytes_to_fetch == 0
    assert all(file.cached for file in resolved.files)
    assert watcher.labels == []


def test_a_new_commit_fetches_only_what_changed(fake_hub: FakeHub, tmp_path: Path):
    first = fake_hub.commit("org/model", NEEDED)
    build(tmp_path)
    fake_hub.sent.clear()
    changed = {**NEEDED, "generation_config.json": b'{"eos_token_id": 2}'}
    second = fake_hub.commit("org/model", changed)
    resolved, content, _ = build(tmp_path)
    assert first != second == resolved.revision
    assert content == changed
    assert fake_hub.fetched() == {"generation_config.json"}


def test_revisions_give_their_own_weights(fake_hub: FakeHub, tmp_path: Path):
    old = {**NEEDED, "model.safetensors": safetensors(a=(3,))}
    new = {**NEEDED, "model.safetensors": safetensors(a=(5,))}
    first = fake_hub.commit("org/model", old, tag="v1")
    second = fake_hub.commit("org/model", new)
    for revision, sha, files in [
        (None, second, new),
        ("main", second, new),
        ("v1", first, old),
        (first[:7], first, old),
    ]:
        resolved, content, _ = build(tmp_path, revision)
        assert resolved.revision == sha
        assert content == files


def test_a_branch_that_moves_meanwhile_does_not_mix_commits(fake_hub: FakeHub, tmp_path: Path):
    first = fake_hub.commit("org/model", NEEDED)
    source = HfFolderSource(HubLocation("org/model"), tmp_path / "cache")
    resolved = source.resolve()
    fake_hub.commit("org/model", {**NEEDED, "tokenizer.json": b'{"version": "2.0"}'})
    checkpoint = source.materialise(resolved, Watcher())
    assert resolved.revision == first == source.resolve().revision
    assert {file.path: file.origin.read_bytes() for file in checkpoint.files} == NEEDED


def test_shards_named_by_the_index(fake_hub: FakeHub, tmp_path: Path):
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = to_json({"metadata": {}, "weight_map": {"a": one, "b": two}})
    sharded = {
        "config.json": CONFIG,
        "model.safetensors.index.json": index,
        one: safetensors(a=(6,)),
        two: safetensors(b=(7,)),
    }
    fake_hub.commit("org/model", {**sharded, "model-00003-of-00003.safetensors": safetensors(c=(1,))})
    resolved, content, _ = build(tmp_path)
    assert content == sharded
    assert resolved.parameters == 13


def test_a_cut_transfer_goes_on_where_it_stopped(fake_hub: FakeHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    chunk = 10 * 2**20  # huggingface_hub writes, and so can keep, whole chunks of this size
    weights = safetensors(a=(4_000_000,))
    fake_hub.commit("org/model", {"config.json": CONFIG, "model.safetensors": weights})
    source = HfFolderSource(HubLocation("org/model"), tmp_path / "cache")
    resolved = source.resolve()
    fake_hub.sent.clear()
    fake_hub.cut_once("model.safetensors", after=chunk + 1000)
    watcher = Watcher()
    checkpoint = source.materialise(resolved, watcher)
    (file,) = (file for file in checkpoint.files if file.path == "model.safetensors")
    assert file.origin.read_bytes() == weights
    assert fake_hub.sent["model.safetensors"] == len(weights) + 1000
    assert ("model.safetensors", f"bytes={chunk}-") in fake_hub.ranges
    assert watcher.done == len(weights)
    assert capfd.readouterr() == ("", "")


def test_offline_with_a_full_commit_in_the_cache(fake_hub: FakeHub, tmp_path: Path):
    sha = fake_hub.commit("org/model", NEEDED | UNNEEDED)
    online, _, _ = build(tmp_path, sha)
    fake_hub.close()
    offline, content, _ = build(tmp_path, sha)
    assert content == NEEDED
    assert offline.revision == sha
    assert offline.bytes_to_fetch == 0
    assert [(file.path, file.size, file.sha256) for file in offline.files] == [
        (file.path, file.size, file.sha256) for file in online.files
    ]


@pytest.mark.slow  # huggingface_hub tries again for some twenty seconds
def test_offline_with_an_incomplete_cache_says_so(fake_hub: FakeHub, tmp_path: Path):
    sha = fake_hub.commit("org/model", NEEDED)
    location = HubLocation("org/model", sha)
    _, files = location.list()
    location.fetch(sha, [file for file in files if file.path == "config.json"], Watcher())
    fake_hub.close()
    with pytest.raises(SourceError, match="cannot be reached"):
        HubLocation("org/model", sha).fetch(sha, [file for file in files if file.path == "tokenizer.json"], Watcher())


def test_offline_mode(fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sha = fake_hub.commit("org/model", NEEDED)
    build(tmp_path, sha)
    fake_hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert build(tmp_path, sha)[1] == NEEDED
    for revision in (None, "0" * 40):
        with pytest.raises(SourceError, match="HF_HUB_OFFLINE forbids"):
            HubLocation("org/model", revision).list()
    assert not fake_hub.requests


def test_a_dead_network_is_named(fake_hub: FakeHub):
    url = fake_hub.url
    fake_hub.close()
    with pytest.raises(SourceError, match=url) as caught:
        HubLocation("org/model").list()
    assert "HF_ENDPOINT" in str(caught.value.fix)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_gated_repository(fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None):
    fake_hub.repo("org/model", gated=True)
    fake_hub.commit("org/model", NEEDED)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SourceError, match="hf:org/model is gated") as caught:
        HfFolderSource(HubLocation("org/model"), tmp_path / "cache").resolve()
    assert ("HF_TOKEN was sent" if token else "no token was sent") in caught.value.message
    assert f"{fake_hub.url}/org/model" in str(caught.value.fix)
    assert TOKEN not in str(caught.value)


def test_token_opens_a_gated_repository_and_stays_secret(
    fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake_hub.repo("org/model", gated=True, tokens={TOKEN})
    fake_hub.commit("org/model", NEEDED)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    _, content, watcher = build(tmp_path)
    assert content == NEEDED
    assert fake_hub.tokens_seen == {("127.0.0.1", TOKEN)}, "the token went to the CDN too"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    assert TOKEN not in repr(watcher.__dict__)


@pytest.mark.parametrize("private", [False, True])
def test_missing_or_private_repository(fake_hub: FakeHub, private: bool):
    if private:
        fake_hub.repo("org/model", private=True)
    with pytest.raises(SourceError, match=r"hf:org/model does not exist at .* or is private") as caught:
        HubLocation("org/model").list()
    assert "HF_TOKEN" in str(caught.value.fix)


def test_missing_revision_names_some_that_exist(fake_hub: FakeHub):
    fake_hub.commit("org/model", NEEDED, tag="v1.0")
    with pytest.raises(SourceError, match=r"no revision 'v2\.0'") as caught:
        HubLocation("org/model", "v2.0").list()
    assert "main, v1.0" in str(caught.value.fix)


def test_a_name_that_cannot_be_a_repository(fake_hub: FakeHub):
    with pytest.raises(SourceError, match=r"hf:org/mo\.\.del is not a repository name"):
        HubLocation("org/mo..del").list()


def test_a_full_disk_names_the_folder(tmp_path: Path):
    asked = Asked("org/model", "main", "https://hub", tmp_path, token_sent=False)
    explained = explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), asked)
    assert str(tmp_path) in explained.message
    assert "full" in explained.message
    assert "HF_HOME" in str(explained.fix)


def test_damaged_blob_in_the_cache_is_refused(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/model", NEEDED)
    build(tmp_path)
    blob = hub_cache() / "models--org--model" / "blobs" / hashlib.sha256(NEEDED["model.safetensors"]).hexdigest()
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(SourceError, match=r"model\.safetensors"):
        build(tmp_path)


def test_changed_byte_in_the_cache_is_found(fake_hub: FakeHub, tmp_path: Path):
    fake_hub.commit("org/model", NEEDED)
    build(tmp_path)
    digest = hashlib.sha256(NEEDED["model.safetensors"]).hexdigest()
    blob = hub_cache() / "models--org--model" / "blobs" / digest
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(SourceError, match=f"SHA-256 .* expected {digest}"):
        build(tmp_path)


def test_custom_code_is_noted_and_left(fake_hub: FakeHub, tmp_path: Path):
    config = to_json({"model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}})
    fake_hub.commit("org/model", {**NEEDED, "config.json": config, "modeling_own.py": b"raise SystemExit"})
    _, content, watcher = build(tmp_path)
    assert "modeling_own.py" not in content
    assert any("modeling_own.py" in note for note in watcher.notes)


def test_environment_is_read_at_each_call(fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = FakeHub()
    other.commit("org/model", {**NEEDED, "tokenizer.json": b"{}"})
    fake_hub.commit("org/model", NEEDED)
    assert build(tmp_path)[1] == NEEDED
    monkeypatch.setenv("HF_ENDPOINT", other.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "second"))
    assert build(tmp_path)[1]["tokenizer.json"] == b"{}"
    assert (tmp_path / "second/hub/models--org--model").is_dir()
    other.close()
