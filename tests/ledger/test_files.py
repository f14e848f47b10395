"""Atomic writes, content hashes, and what a disk refuses."""

import errno
import hashlib
import os
import re
import resource
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from nomoat.errors import ArtifactError
from nomoat.ledger.files import atomic_write, disk_errors, hash_file, hash_tree


def test_atomic_write_replaces_and_leaves_no_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    atomic_write(path, b"old")
    atomic_write(path, memoryview(b"new"))
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["state.json"]


def test_atomic_write_gives_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_bytes_are_durable_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        steps.append("sync folder" if name == tmp_path.name else "sync partial" if ".part" in name else name)
        sync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    atomic_write(tmp_path / "a", b"x")
    assert steps == ["sync partial", "replace", "sync folder"]


def test_a_full_disk_keeps_the_old_bytes_and_says_what_is_free(full_disk: Path) -> None:
    path = full_disk / "weights"
    path.write_bytes(b"old")
    with pytest.raises(ArtifactError) as caught:
        atomic_write(path, bytes(1 << 20))
    said = re.fullmatch(
        rf"{re.escape(str(path))}: the disk is full: [\d.]+ MiB free of [\d.]+ MiB", caught.value.message
    )
    assert said, caught.value.message
    assert caught.value.hint == (
        f"Free some space on the disk that holds {full_disk}. "
        "Then run the same command again: finished stages are kept."
    )
    assert path.read_bytes() == b"old"
    assert not list(full_disk.glob(".*"))


def test_no_permission_names_the_user_and_the_folder(
    open_folder: Path, without_rights: Callable[[], AbstractContextManager[None]]
) -> None:
    open_folder.chmod(0o555)
    with without_rights(), pytest.raises(ArtifactError) as caught:
        user = os.geteuid()
        atomic_write(open_folder / "a", b"x")
    partial = caught.value.message.removesuffix(f": no permission for user {user}")
    assert re.fullmatch(rf"{re.escape(str(open_folder))}/\.a\.\d+-[0-9a-f]{{8}}\.part", partial)
    assert caught.value.hint == (
        f"Give that user the right to read and write {open_folder}. "
        "Then run the same command again: finished stages are kept."
    )


def test_a_file_over_the_limit_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ArtifactError) as caught:
            atomic_write(path, bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heard)
    assert caught.value.message == f"{path}: is larger than this disk or `ulimit -f` lets a file be"
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_disk_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught, disk_errors(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "x"))
    assert caught.value.message == f"{tmp_path / 'x'}: cannot be written: the disk is mounted read-only"


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "missing").read_bytes()


def test_hash_file_is_sha256(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "a").write_bytes(content)
    assert hash_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert hash_tree(tmp_path / "a") == hash_file(tmp_path / "a")


def test_hash_tree_follows_names_and_bytes_and_nothing_else(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, order in ((one, "ab"), (other, "ba")):
        (folder / "sub").mkdir(parents=True)
        for name in order:
            (folder / "sub" / name).write_text(name)
    (other / "sub" / "a").chmod(0o600)
    os.utime(other / "sub" / "a", (1, 1))
    (other / ".DS_Store").write_text("a desktop was here")
    assert hash_tree(one) == hash_tree(other)
    (other / "sub" / "a").rename(other / "sub" / "c")
    assert hash_tree(one) != hash_tree(other)
    (one / "sub" / "a").rename(one / "sub" / "c")
    assert hash_tree(one) == hash_tree(other)
    (one / "sub" / "c").write_text("A")
    assert hash_tree(one) != hash_tree(other)


def test_hash_tree_reads_through_links_to_files_as_the_hub_cache_has_them(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("weights")
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    plain.mkdir()
    linked.mkdir()
    (plain / "w").write_text("weights")
    (linked / "w").symlink_to(tmp_path / "blob")
    assert hash_tree(plain) == hash_tree(linked)


def test_hash_tree_refuses_what_it_would_have_to_leave_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "up").symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match=r"/tree/up: is a link to a folder; expected a real folder$"):
        hash_tree(tree)
    (tree / "up").unlink()
    (tree / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        ArtifactError, match=r"/tree/gone: is a broken link or no plain file; expected a file$"
    ):
        hash_tree(tree)
    with pytest.raises(ArtifactError, match=r"/nowhere: no such file or folder$"):
        hash_tree(tmp_path / "nowhere")
