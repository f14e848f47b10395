"""Files that are whole or absent: atomic writes, content hashes, and disk errors told to the owner."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nomoat.errors import ArtifactError
from nomoat.ledger.canonical import canonical_key

PARTIAL = ".part"
"""Ending of a file that is still being written; `ArtifactStore.sweep` removes what a kill left behind."""

DESKTOP_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that a desktop drops into any folder it shows. They are nobody's content: looking at an artifact in
a file browser must not damage it."""

_MIB = 1 << 20


def atomic_write(path: Path, content: bytes | memoryview) -> None:
    """Write `content` as `atomic_file` does."""
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write: after a crash at any instant `path` holds the old bytes or the new, never a mix.

    Raises ArtifactError when the disk is full, read-only, or closed to us."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    with disk_errors(path):
        try:
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a rename survives a power cut only after this."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path, *, sync: bool = False) -> str:
    """sha256 (64 hex digits) of a file's bytes; with `sync`, those bytes are durable on return."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
    return digest


def hash_tree(path: Path) -> str:
    """sha256 (64 hex digits) of a file, or of the names and bytes of all files under a folder.

    Where the folder lies, and times and permissions, do not count. A link to a file counts as that file
    (the Hub's cache is made of such links); a link to a folder is refused, for it could lead in circles.
    """
    if path.is_file():
        return hash_file(path)
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such file or folder")
    found: dict[str, str] = {}
    for folder, folders, files in os.walk(path, onerror=_raise):
        for name in folders:
            if (Path(folder) / name).is_symlink():
                raise ArtifactError(f"{Path(folder) / name}: is a link to a folder; expected a real folder")
        for name in files:
            file = Path(folder) / name
            if name in DESKTOP_LITTER:
                continue
            if not file.is_file():
                raise ArtifactError(f"{file}: is a broken link or no plain file; expected a file")
            found[file.relative_to(path).as_posix()] = hash_file(file)
    return canonical_key(found)


def _raise(error: OSError) -> None:
    raise error


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are not there yet. ArtifactError where the system refuses."""
    try:
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
    except ArtifactError:
        raise
    except OSError as error:  # /proc, for one, says that there is no such folder
        raise ArtifactError(
            f"{path}: this folder cannot be made ({error.strerror})",
            hint="Give another folder for the workspace.",
        ) from error


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk refuses while `path` is written or read into an ArtifactError with the way out."""
    try:
        yield
    except ArtifactError:
        raise
    except OSError as error:
        where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
        explained = _explain(error.errno, where)
        if explained is None:
            raise
        raise explained from error


def _explain(number: int | None, path: Path) -> ArtifactError | None:
    again = "Then run the same command again: finished stages are kept."
    if number in (errno.ENOSPC, errno.EDQUOT):
        usage = shutil.disk_usage(_nearest_folder(path))
        return ArtifactError(
            f"{path}: the disk is full: {usage.free / _MIB:.1f} MiB free of {usage.total / _MIB:.1f} MiB",
            hint=f"Free some space on the disk that holds {_nearest_folder(path)}. {again}",
        )
    if number == errno.EROFS:
        return ArtifactError(
            f"{path}: cannot be written: the disk is mounted read-only",
            hint=f"Remount it writable, or move the workspace to another disk. {again}",
        )
    if number in (errno.EACCES, errno.EPERM):
        return ArtifactError(
            f"{path}: no permission for user {os.geteuid()}",
            hint=f"Give that user the right to read and write {_nearest_folder(path)}. {again}",
        )
    if number in (errno.ENOTDIR, errno.EEXIST):
        return ArtifactError(
            f"{path}: cannot be a folder: {_nearest_folder(path)} holds a file where one is needed",
            hint="Give a folder for the workspace, or move that file away.",
        )
    if number == errno.EFBIG:
        return ArtifactError(
            f"{path}: is larger than this disk or `ulimit -f` lets a file be",
            hint=f"Raise the limit, or move the workspace to another disk. {again}",
        )
    return None


def _nearest_folder(path: Path) -> Path:
    """The deepest folder on the way to `path` that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
