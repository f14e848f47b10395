"""Artifacts appear whole or not at all, verify what they hold, and heal by being made again."""

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import nomoat
from nomoat.errors import ArtifactError
from nomoat.ledger.artifacts import Artifact, ArtifactStore, artifact_id, canonical_key

KEY = canonical_key(["sft", "a"])
ID = f"sft-{KEY[:16]}"
Make = Callable[..., Artifact]


def test_a_committed_folder_is_found_again_with_what_made_it(store: ArtifactStore, make: Make) -> None:
    assert store.get("sft", KEY) is None
    made = make(inputs={"base": "file:" + "0" * 64})
    assert made == store.get("sft", KEY) == ArtifactStore(store.workspace).get("sft", KEY)
    assert (made.id, made.kind, made.key, made.bytes) == (ID, "sft", KEY, 1002)
    assert (made.inputs, made.meta) == ({"base": "file:" + "0" * 64}, {"name": "a"})
    assert made.path == store.workspace / made.relative_path == store.workspace / ".nomoat/artifacts" / ID
    assert not (store.house / "work" / ID).exists()


def test_the_manifest_lists_every_file_and_holds_no_clock(store: ArtifactStore, make: Make) -> None:
    first = (make().path / "artifact.json").read_bytes()
    content = json.loads(first)
    assert set(content) == {"format", "kind", "key", "inputs", "made_by", "meta", "files", "seal"}
    assert content["made_by"] == f"nomoat {nomoat.__version__}"
    assert set(content["files"]) == {"weights.bin", "tokenizer/vocab.json"}
    vocabulary = content["files"]["tokenizer/vocab.json"]
    # sha256 of '{}' as `printf '{}' | sha256sum` gives it
    sha256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert vocabulary == {"bytes": 2, "sha256": sha256}
    shutil.rmtree(store.house)
    assert (make().path / "artifact.json").read_bytes() == first


def test_an_artifact_made_meanwhile_is_kept(store: ArtifactStore, make: Make) -> None:
    first = make()
    inode = (first.path / "weights.bin").stat().st_ino
    assert make() == first
    assert (first.path / "weights.bin").stat().st_ino == inode
    assert store.warnings == []
    assert list((store.house / "work").iterdir()) == []


def test_a_damaged_artifact_in_the_way_gives_place(store: ArtifactStore, make: Make) -> None:
    (make().path / "weights.bin").write_bytes(b"broken")
    again = make()
    assert (again.path / "weights.bin").read_bytes() == b"a" * 1000
    assert len(store.warnings) == 1


def swap_a_byte(path: Path) -> None:
    content = bytearray((path / "weights.bin").read_bytes())
    content[500] ^= 1
    (path / "weights.bin").write_bytes(content)


def add_a_file(path: Path) -> None:
    (path / "extra").write_text("x")


def cut_the_manifest(path: Path) -> None:
    (path / "artifact.json").write_text((path / "artifact.json").read_text()[:40])


def change_the_meta(path: Path) -> None:
    text = (path / "artifact.json").read_text().replace('"name": "a"', '"name": "b"')
    (path / "artifact.json").write_text(text)


def take_a_file_away(path: Path) -> None:
    (path / "tokenizer" / "vocab.json").unlink()


def make_a_file_longer(path: Path) -> None:
    (path / "weights.bin").write_bytes(b"a" * 1001)


def link_a_file_to_itself_elsewhere(path: Path) -> None:
    (path / "weights.bin").rename(path.parent / "elsewhere")
    (path / "weights.bin").symlink_to(path.parent / "elsewhere")


def link_the_folder(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def name_a_file_outside(path: Path) -> None:
    content = json.loads((path / "artifact.json").read_text())
    del content["seal"]
    content["files"]["../outside"] = {"bytes": 1, "sha256": "0" * 64}
    (path.parent / "outside").write_text("x")
    (path / "artifact.json").write_text(json.dumps({**content, "seal": canonical_key(content)}))


def remove_the_manifest(path: Path) -> None:
    (path / "artifact.json").unlink()


def put_another_artifact_in_its_place(path: Path) -> None:
    content = json.loads((path / "artifact.json").read_text())
    del content["seal"]
    content["key"] = KEY[:16] + "0" * 48
    (path / "artifact.json").write_text(json.dumps({**content, "seal": canonical_key(content)}))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (swap_a_byte, "weights.bin has another checksum than when it was made"),
        (make_a_file_longer, "weights.bin has 1001 bytes; expected 1000"),
        (take_a_file_away, "tokenizer/vocab.json is missing"),
        (add_a_file, "extra is not listed"),
        (change_the_meta, "artifact.json has another checksum than when it was made"),
        (remove_the_manifest, "artifact.json is missing"),
        (link_a_file_to_itself_elsewhere, "weights.bin is a link"),
        (link_the_folder, "it is a link; expected a folder"),
        (name_a_file_outside, "../outside is missing"),
        (cut_the_manifest, "artifact.json cannot be read (JSONDecodeError: "),
        (
            put_another_artifact_in_its_place,
            f"artifact.json names sft {KEY[:16]}{'0' * 48}; expected sft {KEY}",
        ),
    ],
)
def test_damage_is_set_aside_and_told(
    store: ArtifactStore, make: Make, harm: Callable[[Path], None], reason: str
) -> None:
    path = make().path
    harm(path)
    assert store.get("sft", KEY) is None
    aside = store.house / "damaged" / f"{ID}-1"
    (warning,) = store.warnings
    assert warning.startswith(f"artifact {ID} is damaged: {reason}")
    assert warning.endswith(f". It was moved to {aside} and will be made again.")
    assert os.path.lexists(aside)
    assert not os.path.lexists(path)
    assert store.get("sft", KEY) is None
    assert len(store.warnings) == 1


def test_each_damaged_copy_gets_its_own_place(store: ArtifactStore, make: Make) -> None:
    for number in (1, 2, 3):
        add_a_file(make().path)
        assert store.get("sft", KEY) is None
        assert (store.house / "damaged" / f"{ID}-{number}" / "extra").exists()


def test_looking_at_an_artifact_in_a_file_browser_does_not_damage_it(
    store: ArtifactStore, make: Make
) -> None:
    (make().path / "tokenizer" / ".DS_Store").write_text("x")
    assert store.get("sft", KEY) is not None


def test_checksums_are_read_once_a_process_unless_the_file_changes(
    store: ArtifactStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make().path
    read: list[str] = []
    from nomoat.ledger import artifacts

    hash_file = artifacts.hash_file
    monkeypatch.setattr(artifacts, "hash_file", lambda file: (read.append(file.name), hash_file(file))[1])
    store.get("sft", KEY)
    assert read == []  # commit has just read them
    fresh = ArtifactStore(store.workspace)
    fresh.get("sft", KEY)
    fresh.get("sft", KEY)
    assert read == ["vocab.json", "weights.bin"]
    os.utime(path / "weights.bin")
    fresh.get("sft", KEY)
    assert read == ["vocab.json", "weights.bin", "weights.bin"]


def test_a_newer_format_is_refused_and_left_alone(store: ArtifactStore, make: Make) -> None:
    path = make().path / "artifact.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": 2, "made_by": "nomoat 9.1"}))
    with pytest.raises(ArtifactError) as caught:
        store.get("sft", KEY)
    assert str(caught.value) == (
        f"{path}: was written by nomoat 9.1 in format 2; "
        f"this is nomoat {nomoat.__version__}, which reads formats up to 1\n"
        "  Use the newer nomoat for this workspace: pip install --upgrade nomoat"
    )
    assert path.exists()


def test_work_is_found_again_until_it_is_cleared(store: ArtifactStore) -> None:
    (store.work_dir("sft", KEY) / "half").write_text("x")
    (store.scratch_dir("sft", KEY) / "step-1").write_text("x")
    assert (store.work_dir("sft", KEY) / "half").exists()
    assert (store.scratch_dir("sft", KEY) / "step-1").exists()
    store.clear_work("sft", KEY)
    assert list(store.work_dir("sft", KEY).iterdir()) == []
    assert list(store.scratch_dir("sft", KEY).iterdir()) == []
    assert list((store.house / "trash").iterdir()) == []


def test_checkpoints_stay_out_of_the_artifact_and_go_with_the_commit(
    store: ArtifactStore, make: Make
) -> None:
    (store.scratch_dir("sft", KEY) / "step-1").write_text("x")
    made = make()
    assert {path.name for path in made.path.iterdir()} == {"artifact.json", "tokenizer", "weights.bin"}
    assert list((store.house / "work").iterdir()) == []


def test_half_written_files_of_a_killed_run_stay_out_of_the_artifact(
    store: ArtifactStore, make: Make
) -> None:
    (store.work_dir("sft", KEY) / ".weights.bin.1-0badcafe.part").write_text("x")
    assert {path.name for path in make().path.iterdir()} == {"artifact.json", "tokenizer", "weights.bin"}


@pytest.mark.parametrize("target", ["/etc/hostname", "weights.bin", "/nowhere"])
def test_links_do_not_become_part_of_an_artifact(store: ArtifactStore, target: str) -> None:
    work = store.work_dir("sft", KEY)
    (work / "weights.bin").write_text("x")
    (work / "link").symlink_to(target)
    with pytest.raises(ArtifactError) as caught:
        store.commit("sft", KEY, inputs={}, meta={})
    assert str(caught.value) == f"{work}: cannot become an artifact: link is a link"
    assert store.get("sft", KEY) is None


def test_a_pipe_does_not_become_part_of_an_artifact(store: ArtifactStore) -> None:
    work = store.work_dir("sft", KEY)
    os.mkfifo(work / "pipe")
    with pytest.raises(ArtifactError, match=r": cannot become an artifact: pipe is no plain file$"):
        store.commit("sft", KEY, inputs={}, meta={})


def test_meta_that_json_cannot_hold_is_our_mistake_and_commits_nothing(store: ArtifactStore) -> None:
    (store.work_dir("sft", KEY) / "weights.bin").write_text("x")
    with pytest.raises(ValueError, match=r"^meta of sft\.loss: got nan; "):
        store.commit("sft", KEY, inputs={}, meta={"loss": float("nan")})
    assert store.get("sft", KEY) is None


def test_everything_is_durable_before_the_artifact_appears(
    store: ArtifactStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, rename = os.fsync, Path.rename

    def noted_sync(descriptor: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        steps.append(f"rename to {Path(target).parent.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    final = make().path
    work = str(store.house / "work" / final.name)
    before, after = (
        steps[: steps.index("rename to artifacts")],
        steps[steps.index("rename to artifacts") + 1 :],
    )
    assert {f"{work}/weights.bin", f"{work}/tokenizer/vocab.json", f"{work}/tokenizer", work} <= set(before)
    assert any(step.startswith(f"{work}/.artifact.json.") for step in before)
    assert {str(store.house / "work"), str(store.house), str(store.workspace)} <= set(before)
    assert after[0] == str(final.parent)


def test_folders_on_two_disks_are_explained(
    store: ArtifactStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def across(self: Path, target: Path) -> Path:
        raise OSError(18, "Invalid cross-device link", str(self), None, str(target))

    monkeypatch.setattr(Path, "rename", across)
    with pytest.raises(ArtifactError) as caught:
        make()
    assert str(caught.value) == (
        f"{store.house}/artifacts and {store.house}/work are on different disks: nothing moves in one step\n"
        "  Put both on one disk: link the whole .nomoat folder instead of a part of it."
    )


def test_a_workspace_that_may_not_be_written_is_explained(
    open_folder: Path, without_rights: Callable[[], AbstractContextManager[None]]
) -> None:
    open_folder.chmod(0o555)
    with without_rights(), pytest.raises(ArtifactError) as caught:
        user = os.geteuid()
        ArtifactStore(open_folder).work_dir("sft", KEY)
    assert caught.value.message == f"{open_folder}/.nomoat: no permission for user {user}"
    assert caught.value.hint == (
        f"Give that user the right to read and write {open_folder}. "
        "Then run the same command again: finished stages are kept."
    )


def test_an_artifact_that_may_not_be_read_is_not_taken_for_damaged(
    open_folder: Path, without_rights: Callable[[], AbstractContextManager[None]]
) -> None:
    store = ArtifactStore(open_folder)
    work = store.work_dir("sft", KEY)
    (work / "weights.bin").write_text("x")
    made = store.commit("sft", KEY, inputs={}, meta={})
    (made.path / "weights.bin").chmod(0)
    with without_rights(), pytest.raises(ArtifactError, match=r"/weights\.bin: no permission for user \d+"):
        ArtifactStore(open_folder).get("sft", KEY)
    assert made.path.exists()


def test_a_full_disk_leaves_no_artifact(full_disk: Path) -> None:
    store = ArtifactStore(full_disk)
    work = store.work_dir("sft", KEY)
    with pytest.raises(ArtifactError, match=r": the disk is full: [\d.]+ MiB free of [\d.]+ MiB"):
        # 60 KiB of weights fit into the 64 KiB that are free, 60 KiB of manifest do not any more
        (work / "weights.bin").write_bytes(bytes(60 << 10))
        store.commit("sft", KEY, inputs={}, meta={"notes": "x" * (60 << 10)})
    assert store.get("sft", KEY) is None
    assert not list(work.glob(".*.part"))


def test_sweep_removes_stale_and_finished_work_and_counts_its_bytes(store: ArtifactStore, make: Make) -> None:
    def work(name: str, age_s: float) -> str:
        key = canonical_key(name)
        for folder in (store.work_dir("sft", key), store.scratch_dir("sft", key)):
            (folder / "file").write_bytes(bytes(1000))
            for path in (folder / "file", folder):
                os.utime(path, (time.time() - age_s,) * 2)
        return artifact_id("sft", key)

    old, new, kept = work("old", 7200), work("new", 60), work("kept", 7200)
    make()
    done = store.scratch_dir("sft", KEY)  # killed after the rename, before the scratch was removed
    (done / "step-1").write_bytes(bytes(500))
    (store.house / "trash" / "half-removed").mkdir(parents=True)
    (store.house / "trash" / "half-removed" / "file").write_bytes(bytes(70))
    (store.house / ".notes.1-0badcafe.part").write_bytes(bytes(7))
    (store.house / "work" / new / ".file.1-0badcafe.part").write_bytes(bytes(7))
    (store.house / "check-killed").mkdir()
    (store.house / "check-killed" / "file").write_bytes(bytes(30))
    with store.lock():
        swept = store.sweep(max_age_s=3600, keep={kept})
        assert store.sweep(max_age_s=3600, keep={kept}).paths == ()
    assert swept.bytes_freed == 2000 + 500 + 70 + 14 + 30
    assert set(swept.paths) == {
        ".nomoat/trash/half-removed",
        ".nomoat/check-killed",
        f".nomoat/work/{old}",
        f".nomoat/work/{old}.scratch",
        f".nomoat/work/{done.name}",
        ".nomoat/.notes.1-0badcafe.part",
        f".nomoat/work/{new}/.file.1-0badcafe.part",
    }
    left = {path.name for path in (store.house / "work").iterdir()}
    assert left == {new, f"{new}.scratch", kept, f"{kept}.scratch"}
    assert store.get("sft", KEY) is not None


def test_a_folder_for_a_check_is_gone_after_it_and_not_swept_in_it(store: ArtifactStore) -> None:
    left = store.house / "check-killed"
    left.mkdir(parents=True)
    with store.check_dir() as one, store.check_dir() as other, store.lock():
        assert not left.exists()
        assert one != other
        assert store.sweep(max_age_s=0).paths == ()
        assert one.is_dir()
        assert other.is_dir()
    assert not one.exists()
    assert not other.exists()


def test_sweep_without_the_lock_is_our_mistake(store: ArtifactStore) -> None:
    with pytest.raises(AssertionError, match="sweep needs the workspace's lock"):
        store.sweep(max_age_s=0)


@pytest.mark.parametrize(("kind", "key"), [("Sft", KEY), ("s-ft", KEY), ("../sft", KEY), ("sft", "ab")])
def test_odd_kinds_and_keys_are_our_mistake(kind: str, key: str) -> None:
    with pytest.raises(AssertionError):
        artifact_id(kind, key)
