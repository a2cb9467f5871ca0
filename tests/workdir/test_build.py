"""A whole build, from a project to folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cogsmith.config.model import CogSettings
from cogsmith.errors import LockDrift, ProblemsError, SourceError, UserError, WorkdirError
from cogsmith.workdir import lint
from cogsmith.workdir.build import preview


def test_first_build_makes_a_clean_folder_of_hard_links(workshop):
    source = workshop.add("tiny")
    (built,) = workshop.build()
    folder = workshop.folder("tiny")
    assert built.folder == folder
    assert built.placed == {"hard link": 2}
    weights = folder / "checkpoints/model.safetensors"
    assert weights.samefile(source.folder / "model.safetensors")
    assert lint.check(folder) == []
    assert json.loads((folder / "model.json").read_text())["source"] == f"hf:org/repo@{'a' * 40}"
    assert (workshop.root / "work/.gitignore").read_text() == "*\n!.gitignore\n"
    assert sorted(path.name for path in (workshop.root / "work").iterdir()) == [".gitignore", ".lock", "tiny"]


def test_second_build_touches_nothing(workshop, snapshot):
    source = workshop.add("tiny")
    workshop.build()
    before, lock = snapshot(workshop.folder("tiny")), (workshop.root / "cogsmith.lock").stat()
    (built,) = workshop.build()
    assert built.plan.state == "unchanged"
    assert snapshot(workshop.folder("tiny")) == before
    assert (workshop.root / "cogsmith.lock").stat().st_mtime_ns == lock.st_mtime_ns
    assert source.materialised == 1


def test_rebuild_moves_no_weight_bytes_and_drops_stale_files(workshop):
    source = workshop.add("tiny")
    source.put({"stale.json": b"{}"})
    workshop.build()
    weights = workshop.folder("tiny") / "checkpoints/model.safetensors"
    inode = weights.stat().st_ino
    (source.folder / "stale.json").unlink()
    source.revision = "b" * 40
    (built,) = workshop.build()
    assert built.plan.changes == (f"revision {'a' * 40} -> {'b' * 40}", built.plan.changes[1])
    assert weights.stat().st_ino == inode
    assert not (workshop.folder("tiny") / "checkpoints/stale.json").exists()


@pytest.mark.parametrize(
    ("path", "content", "change"),
    [
        ("predict.py", "x = 1\n", "predict.py was altered"),
        ("notes.txt", "mine\n", "notes.txt does not belong there"),
        ("checkpoints/model.safetensors", "short", "checkpoints/model.safetensors was altered"),
    ],
)
def test_tampered_folder_is_restored(workshop, path, content, change):
    workshop.add("tiny")
    workshop.build()
    target = workshop.folder("tiny") / path
    target.unlink(missing_ok=True)
    target.write_text(content)
    (built,) = workshop.build()
    assert built.plan.changes == (change,)
    assert workshop.build()[0].plan.state == "unchanged"


@pytest.mark.parametrize("path", ["cogsmith/__pycache__/x.pyc", ".cog/tmp/build"])
def test_what_python_and_cog_leave_is_no_change(workshop, path):
    workshop.add("tiny")
    workshop.build()
    target = workshop.folder("tiny") / path
    target.parent.mkdir(parents=True)
    target.write_bytes(b"x")
    assert workshop.build()[0].plan.state == "unchanged"


def test_same_inputs_same_bytes_and_modes(workshop, tmp_path):
    trees = []
    for umask in (0o022, 0o077):
        workshop.root = tmp_path / f"{umask:o}"
        workshop.root.mkdir()
        workshop.sources.clear()
        workshop.add("tiny")
        previous = os.umask(umask)
        try:
            workshop.build()
        finally:
            os.umask(previous)
        root = workshop.folder("tiny")
        files = [path for path in sorted(root.rglob("*")) if "checkpoints/" not in path.as_posix()]
        trees.append([(p.relative_to(root), p.stat().st_mode, p.read_bytes() if p.is_file() else b"") for p in files])
    assert trees[0] == trees[1]


def test_all_errors_are_collected_before_anything_is_written(workshop):
    workshop.add("good")
    workshop.add("bad-1", line=7).error = "the repository is gated"
    workshop.add("bad-2", line=9).error = "no such revision"
    with pytest.raises(ProblemsError) as caught:
        workshop.build()
    found = [(problem.where, problem.line) for problem in caught.value.problems]
    assert found == [("models.bad-1", 7), ("models.bad-2", 9)]
    assert "the repository is gated" in str(caught.value)
    assert not (workshop.root / "work").exists()


def test_one_error_keeps_its_kind(workshop):
    workshop.add("bad").error = "the repository is gated"
    with pytest.raises(SourceError, match="gated"):
        workshop.build()


def test_unknown_name_names_the_nearest(workshop):
    workshop.add("smollm2-135m")
    with pytest.raises(UserError, match="did you mean 'smollm2-135m'"):
        workshop.build("smolm2-135m")


def test_only_the_named_models_in_the_given_order(workshop):
    for name in ("a", "b", "c"):
        workshop.add(name)
    assert [built.plan.model.name for built in workshop.build("c", "a", "c")] == ["c", "a"]
    assert not workshop.folder("b").exists()


def test_folder_that_breaks_a_rule_never_replaces_a_good_one(workshop, snapshot):
    source = workshop.add("tiny")
    workshop.build()
    before = snapshot(workshop.folder("tiny"))
    source.put({"modeling_tiny.py": b""})
    source.revision = "b" * 40
    with pytest.raises(WorkdirError, match=r"modeling_tiny\.py"):
        workshop.build()
    assert snapshot(workshop.folder("tiny")) == before
    assert sorted(path.name for path in (workshop.root / "work").iterdir()) == [".gitignore", ".lock", "tiny"]


def test_file_outside_the_checkpoint_is_refused(workshop, tmp_path, monkeypatch):
    source = workshop.add("tiny")
    escaping = source.materialise(source.resolve(), None).files[0]
    object.__setattr__(escaping, "path", "../../escaped")
    monkeypatch.setattr(source, "materialise", lambda *_: type("C", (), {"files": (escaping,)})())
    with pytest.raises(SourceError, match="escaped"):
        workshop.build()
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(
    ("place", "recorded"), [("{root}/sub/weights", "path:sub/weights"), ("/x/weights", "path:weights")]
)
def test_local_weights_leave_no_path_of_this_machine(workshop, monkeypatch, place, recorded):
    source = workshop.add("tiny")
    resolved = replace(source.resolve(), uri="path:" + place.format(root=workshop.root))
    monkeypatch.setattr(source, "resolve", lambda: resolved)
    workshop.build()
    manifest = json.loads((workshop.folder("tiny") / "model.json").read_text())
    locked = json.loads((workshop.root / "cogsmith.lock").read_text())["models"]["tiny"]
    assert (manifest["source"], locked["source"]) == (f"{recorded}@{source.revision}", recorded)


def test_pickles_need_consent(workshop):
    workshop.add("tiny").put({"pytorch_model.bin": b"x"})
    with pytest.raises(WorkdirError, match="pickle"):
        workshop.build()
    workshop.add("tiny", allow_pickle=True)
    workshop.build()
    assert (workshop.folder("tiny") / "checkpoints/pytorch_model.bin").is_file()
    assert lint.check(workshop.folder("tiny")) == []


def test_frozen_accepts_what_the_lock_says(workshop):
    workshop.add("tiny")
    workshop.build()
    lock = (workshop.root / "cogsmith.lock").read_bytes()
    for path in sorted(workshop.folder("tiny").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    workshop.folder("tiny").rmdir()
    workshop.build(frozen=True)
    assert workshop.folder("tiny").is_dir()
    assert (workshop.root / "cogsmith.lock").read_bytes() == lock


def test_frozen_names_every_difference(workshop, snapshot):
    for name in ("a", "b", "c", "d"):
        workshop.add(name)
    workshop.build()
    before = snapshot(workshop.root / "work")
    workshop.sources["a"].revision = "b" * 40
    workshop.add("b", requirements=("einops==0.8.1", "torch==2.12.0"))
    workshop.add("c", cog=CogSettings(concurrency=1))
    workshop.add("new")
    with pytest.raises(LockDrift) as caught:
        workshop.build(frozen=True)
    text = str(caught.value)
    assert f"a: revision {'a' * 40} -> {'b' * 40}" in text
    assert "b: requirement einops==0.8.1 added" in text
    assert "b: requirement torch==2.13.0 dropped" in text
    assert "c: rendered files differ" in text
    assert "new: not in the lock yet" in text
    assert "d:" not in text
    assert snapshot(workshop.root / "work") == before


def test_frozen_sees_other_bytes_under_the_same_revision(workshop, safetensors):
    source = workshop.add("tiny")
    workshop.build()
    (workshop.folder("tiny") / "predict.py").unlink()
    source.put({"model.safetensors": safetensors(a=4, b=4), "extra.json": b"{}"})
    with pytest.raises(LockDrift) as caught:
        workshop.build(frozen=True)
    assert "file extra.json added" in str(caught.value)
    assert "file model.safetensors: same size, other content" in str(caught.value)
    assert not (workshop.folder("tiny") / "predict.py").exists()


def test_lock_forgets_models_that_the_config_dropped(workshop):
    workshop.add("old")
    workshop.add("kept")
    workshop.build()
    del workshop.models["old"]
    workshop.sources["kept"].revision = "b" * 40
    workshop.build()
    assert list(json.loads((workshop.root / "cogsmith.lock").read_text())["models"]) == ["kept"]


def test_two_builds_keep_apart(workshop):
    workshop.add("tiny")
    hold = (
        "import sys; from pathlib import Path; from cogsmith.workdir.exclusive import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    work = workshop.root / "work"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(work)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid}"):
            workshop.build()
        assert not workshop.folder("tiny").exists()
        holder.kill()
        holder.wait()
        assert workshop.build()[0].folder.is_dir()


def test_disk_space_is_checked_before_fetching(workshop):
    source = workshop.add("tiny")
    source.fetch_bytes = 2**60
    with pytest.raises(UserError, match="not enough disk space"):
        workshop.build()
    assert source.materialised == 0


def test_leftovers_of_a_killed_build_are_cleaned(workshop):
    workshop.add("tiny")
    work = workshop.root / "work"
    (work / ".tiny.tmp-99999/checkpoints").mkdir(parents=True)
    (work / ".other.old-99999").mkdir()
    workshop.build()
    assert sorted(path.name for path in work.iterdir()) == [".gitignore", ".lock", "other", "tiny"]


def test_preview_writes_nothing(workshop):
    workshop.add("tiny").fetch_bytes = 123
    (plan,) = preview(workshop.project, open_source=workshop.open)
    assert (plan.state, plan.bytes_to_fetch, plan.changes) == ("new", 123, ("not in the lock yet",))
    assert not (workshop.root / "work").exists()
    assert not (workshop.root / "cogsmith.lock").exists()


def test_plan_counts_the_image_and_the_cache_of_a_known_model(workshop):
    workshop.add("tiny")
    assert preview(workshop.project, open_source=workshop.open)[0].memory.cache is None
    workshop.build()
    (plan,) = preview(workshop.project, open_source=workshop.open)
    files = [path for path in workshop.folder("tiny").rglob("*") if path.is_file()]
    assert plan.image_bytes == sum(path.stat().st_size for path in files)
    # keys and values x 2 layers x 2 heads x 16 numbers x 2 bytes x 4096 tokens x 16 rows
    assert plan.memory.cache == 2 * 2 * 2 * 16 * 2 * 4096 * 16
    assert plan.state == "unchanged"


def test_weights_of_a_subfolder_keep_their_place(workshop):
    workshop.add("tiny").put({"onnx/config.json": b"{}"})
    workshop.build()
    assert (workshop.folder("tiny") / "checkpoints/onnx/config.json").read_bytes() == b"{}"
    assert Path(workshop.folder("tiny") / "checkpoints").stat().st_mode & 0o777 == 0o755
