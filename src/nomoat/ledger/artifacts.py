"""Artifacts: folders that are whole or absent, named by the hash of everything that made them.

A stage writes into its work folder; `commit` checksums it, makes it durable and renames it into place in
one step. A kill at any instant leaves either the whole artifact or only a work folder.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomoat.errors import ArtifactError
from nomoat.ledger.canonical import canonical_key
from nomoat.ledger.files import PARTIAL, atomic_write, disk_errors, hash_file, hash_tree, sync_folder
from nomoat.ledger.lock import locked, shared
from nomoat.ledger.manifest import MANIFEST, DamageError, Manifest, list_files, read_manifest, write_manifest

__all__ = [
    "HOUSE",
    "Artifact",
    "ArtifactStore",
    "Swept",
    "artifact_id",
    "atomic_write",
    "canonical_key",
    "disk_errors",
    "hash_file",
    "hash_tree",
]

HOUSE = ".nomoat"
"""The folder of a workspace that is nomoat's: ledger, artifacts, unfinished work."""

_KIND = re.compile(r"[a-z][a-z0-9_]*")
_KEY = re.compile(r"[0-9a-f]{64}")
_SCRATCH = ".scratch"
_CHECK = "check-"


@dataclass(frozen=True)
class Artifact:
    """A verified folder. `inputs` maps a role to an artifact's id or to an outside fingerprint."""

    id: str
    kind: str
    key: str
    path: Path
    inputs: dict[str, str]
    meta: dict[str, Any]
    bytes: int

    @property
    def relative_path(self) -> str:
        """The folder as seen from the workspace: what the ledger keeps, so that a workspace can move."""
        return f"{HOUSE}/artifacts/{self.id}"


@dataclass(frozen=True)
class Swept:
    """What a sweep removed: paths as seen from the workspace, and their bytes."""

    paths: tuple[str, ...]
    bytes_freed: int


def artifact_id(kind: str, key: str) -> str:
    """'<kind>-<first 16 hex digits of the key>'."""
    assert _KIND.fullmatch(kind), kind
    assert _KEY.fullmatch(key), key
    return f"{kind}-{key[:16]}"


class ArtifactStore:
    """The artifacts of one workspace. `warnings` gathers what was found damaged, for the night to say."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace.absolute()
        self.house = self.workspace / HOUSE
        self.warnings: list[str] = []
        self._checked: dict[Path, tuple[int, int, int]] = {}  # file -> its stat when its checksum was right
        self._locked = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this workspace for one night; an ArtifactError that names the process that holds it."""
        with locked(self.house / "lock"):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def get(self, kind: str, key: str) -> Artifact | None:
        """The artifact, or None where there is none, or none that is whole.

        Names and sizes are verified each time, checksums when this process first sees a file or sees it
        changed. A damaged folder is moved to `.nomoat/damaged/` and a line is added to `warnings`.
        Raises ArtifactError when the folder may not be read or was written by a newer nomoat.
        """
        path = self._final(kind, key)
        if not os.path.lexists(path):
            return None
        with disk_errors(path):
            try:
                manifest = self._verified(path, kind, key)
            except (DamageError, FileNotFoundError) as damage:
                self._set_aside(path, str(damage))
                return None
        return _artifact(path, manifest)

    def file(self, kind: str, key: str, name: str) -> Path | None:
        """One file of an artifact, verified alone, so that the others need not be read; None where it is not there, or
        not whole. Nothing is set aside for it."""
        path = self._final(kind, key)
        with disk_errors(path):
            try:
                is_whole = hash_file(path / name) == read_manifest(path).files[name].sha256
            except (DamageError, FileNotFoundError, KeyError):
                return None
        return path / name if is_whole else None

    def work_dir(self, kind: str, key: str) -> Path:
        """The folder where the files of this artifact are made; what a killed run left is still in it."""
        path = self._work(kind, key)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            (path / MANIFEST).unlink(missing_ok=True)  # of a commit that was killed before its rename
        return path

    def scratch_dir(self, kind: str, key: str) -> Path:
        """A folder beside the work folder for what is needed only to go on after a kill (checkpoints).

        It never becomes part of the artifact, and `commit` removes it after the artifact is in place, so
        there is no instant at which hours of work are in neither."""
        path = self._scratch(kind, key)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def has_begun(self, kind: str, key: str) -> bool:
        """Whether a killed or stopped run left something to go on from. Makes no folder."""
        path = self._scratch(kind, key)
        return path.is_dir() and any(path.iterdir())

    @contextmanager
    def check_dir(self) -> Iterator[Path]:
        """A folder for what a check writes and nobody needs after it. It needs no `lock`: checks run beside a
        night and beside each other."""
        with (
            self._among_checks(self._discard),
            disk_errors(self.house),
            tempfile.TemporaryDirectory(prefix=_CHECK, dir=self.house) as folder,
        ):
            yield Path(folder)

    def clear_work(self, kind: str, key: str) -> None:
        """Start this artifact anew: no work and no scratch of it is found again, even if killed in here."""
        for path in (self._work(kind, key), self._scratch(kind, key)):
            self._discard(path)

    def commit(self, kind: str, key: str, *, inputs: dict[str, str], meta: dict[str, Any]) -> Artifact:
        """Turn the work folder into the artifact, durable on return. `meta` is plain JSON.

        Where another process has committed the same artifact meanwhile, that one is kept. Raises
        ArtifactError for links and other things in the work folder that are no plain files, and when the
        disk refuses."""
        work, final = self._work(kind, key), self._final(kind, key)
        with disk_errors(work):
            (work / MANIFEST).unlink(missing_ok=True)
            self._drop_partials(work)
            try:
                files = list_files(work, sync=True)
            except DamageError as damage:
                raise ArtifactError(f"{work}: cannot become an artifact: {damage}") from damage
            assert files, f"{work}: the stage wrote nothing"
            write_manifest(work, Manifest(kind, key, inputs, meta, files))
            final.parent.mkdir(exist_ok=True)
            if self._move_into_place(work, final, kind, key):
                self._checked.update({final / name: _stamp(final / name) for name in files})
        self.clear_work(kind, key)
        artifact = self.get(kind, key)
        assert artifact is not None, self.warnings
        return artifact

    def sweep(self, *, max_age_s: float, keep: Collection[str] = ()) -> Swept:
        """Remove what ended nights left half-done, and say what that freed. Call it under `lock`.

        A work or scratch folder goes when its artifact is in place, or when nothing in it changed for
        `max_age_s` seconds and its id is not in `keep`. Half-written files go at any age, and what killed
        checks left when no check runs."""
        assert self._locked, "sweep needs the workspace's lock: the work folders may be a running night's"
        removed: list[tuple[Path, int]] = []

        def remove(path: Path) -> None:
            removed.append((path, _tree_bytes(path)))
            self._discard(path)

        with disk_errors(self.house):
            for path in [*_children(self.house / "trash"), *self._stale_work(max_age_s, keep)]:
                remove(path)
            with self._among_checks(remove):
                pass
            for folder in (self.house, *_children(self.house / "work")):
                removed += self._drop_partials(folder)
        paths = tuple(path.relative_to(self.workspace).as_posix() for path, _ in removed)
        return Swept(paths, sum(size for _, size in removed))

    def _final(self, kind: str, key: str) -> Path:
        return self.house / "artifacts" / artifact_id(kind, key)

    def _work(self, kind: str, key: str) -> Path:
        return self.house / "work" / artifact_id(kind, key)

    def _scratch(self, kind: str, key: str) -> Path:
        return self.house / "work" / f"{artifact_id(kind, key)}{_SCRATCH}"

    def _verified(self, path: Path, kind: str, key: str) -> Manifest:
        manifest = read_manifest(path)
        if (manifest.kind, manifest.key) != (kind, key):
            raise DamageError(f"{MANIFEST} names {manifest.kind} {manifest.key}; expected {kind} {key}")
        found = list_files(path, checksums=False)
        if found.keys() != manifest.files.keys():
            odd = sorted(found.keys() ^ manifest.files.keys())[0]
            raise DamageError(f"{odd} is {'not listed' if odd in found else 'missing'}")
        for name, listed in manifest.files.items():
            if found[name].bytes != listed.bytes:
                raise DamageError(f"{name} has {found[name].bytes} bytes; expected {listed.bytes}")
            stamp = _stamp(path / name)
            if self._checked.get(path / name) == stamp:
                continue
            if hash_file(path / name) != listed.sha256:
                raise DamageError(f"{name} has another checksum than when it was made")
            self._checked[path / name] = stamp
        return manifest

    def _set_aside(self, path: Path, reason: str) -> None:
        damaged = self.house / "damaged"
        damaged.mkdir(exist_ok=True)
        for number in itertools.count(1):
            aside = damaged / f"{path.name}-{number}"
            if not os.path.lexists(aside):
                break
        try:
            path.rename(aside)
        except FileNotFoundError:
            return  # another process has set it aside just now
        self.warnings.append(
            f"artifact {path.name} is damaged: {reason}. It was moved to {aside} and will be made again."
        )

    def _move_into_place(self, work: Path, final: Path, kind: str, key: str) -> bool:
        """Whether `work` became `final`; False where a whole artifact of that name was there before."""
        for folder in (work, work.parent, self.house, self.workspace):
            sync_folder(folder)
        try:
            work.rename(final)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise ArtifactError(
                    f"{final.parent} and {work.parent} are on different disks: nothing moves in one step",
                    hint=f"Put both on one disk: link the whole {HOUSE} folder instead of a part of it.",
                ) from error
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            if self.get(kind, key) is not None:
                return False
            work.rename(final)
        sync_folder(final.parent)
        return True

    def _discard(self, path: Path) -> None:
        """Remove a tree in one step as far as anyone can see: a killed removal leaves nothing to resume."""
        trash = self.house / "trash"
        with disk_errors(path):
            if path.parent != trash:
                trash.mkdir(parents=True, exist_ok=True)
                unseen = trash / f"{path.name}-{os.getpid()}-{secrets.token_hex(4)}"
                try:
                    path.rename(unseen)
                except FileNotFoundError:
                    return
                path = unseen
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _stale_work(self, max_age_s: float, keep: Collection[str]) -> Iterator[Path]:
        for path in _children(self.house / "work"):
            name = path.name.removesuffix(_SCRATCH)
            done = (self.house / "artifacts" / name).is_dir()
            if done or (name not in keep and time.time() - _last_change(path) > max_age_s):
                yield path

    @contextmanager
    def _among_checks(self, remove: Callable[[Path], None]) -> Iterator[None]:
        """Be a check. `remove` gets what killed ones left, unless another check runs: it could be its own."""

        def remove_left() -> None:
            for path in sorted(self.house.glob(f"{_CHECK}*")):
                remove(path)

        with shared(self.house / "check.lock", when_alone=remove_left):
            yield

    def _drop_partials(self, folder: Path) -> list[tuple[Path, int]]:
        """Remove files whose writing was cut off, in `folder` (not below the house's other folders)."""
        pattern = f".*{PARTIAL}"
        found = folder.glob(pattern) if folder == self.house else folder.rglob(pattern)
        dropped = [(path, path.lstat().st_size) for path in found if path.is_file() or path.is_symlink()]
        for path, _ in dropped:
            path.unlink()
        return dropped


def _artifact(path: Path, manifest: Manifest) -> Artifact:
    size = sum(file.bytes for file in manifest.files.values())
    return Artifact(path.name, manifest.kind, manifest.key, path, manifest.inputs, manifest.meta, size)


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _last_change(path: Path) -> float:
    """Seconds since the epoch of the newest change to anything in a tree."""
    return max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))


def _tree_bytes(path: Path) -> int:
    return sum(entry.lstat().st_size for entry in (path, *path.rglob("*")) if not entry.is_dir())
