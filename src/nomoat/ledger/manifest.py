"""`artifact.json`: what an artifact is, what made it, and the size and checksum of each of its files."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nomoat
from nomoat.errors import ArtifactError
from nomoat.ledger.canonical import canonical_key, check_json
from nomoat.ledger.files import DESKTOP_LITTER, atomic_write, hash_file, sync_folder

MANIFEST = "artifact.json"
_FORMAT = 1


class DamageError(Exception):
    """Why a folder is not the artifact it says it is. Never leaves this room."""


@dataclass(frozen=True)
class FileEntry:
    """Size and checksum of one file; `sha256` is '' where nobody asked for it."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of `artifact.json`. `files` maps relative POSIX paths to their entries."""

    kind: str
    key: str
    inputs: dict[str, str]
    meta: dict[str, Any]
    files: dict[str, FileEntry]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `artifact.json`, durable on return. It holds no clock time: same inputs, same bytes."""
    check_json(manifest.meta, f"meta of {manifest.kind}")
    content = {
        "format": _FORMAT,
        "kind": manifest.kind,
        "key": manifest.key,
        "inputs": manifest.inputs,
        "made_by": f"nomoat {nomoat.__version__}",
        "meta": manifest.meta,
        "files": {
            name: {"bytes": entry.bytes, "sha256": entry.sha256} for name, entry in manifest.files.items()
        },
    }
    sealed = {**content, "seal": canonical_key(content)}
    atomic_write(folder / MANIFEST, (json.dumps(sealed, indent=1, sort_keys=True) + "\n").encode("ascii"))


def read_manifest(folder: Path) -> Manifest:
    """Read and check `artifact.json`. Raises DamageError; ArtifactError where a newer nomoat wrote it."""
    if folder.is_symlink():
        raise DamageError("it is a link; expected a folder")
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise DamageError(f"{MANIFEST} is missing")
    try:
        content = json.loads(path.read_bytes())
        if content["format"] > _FORMAT:
            raise ArtifactError(
                f"{path}: was written by {content['made_by']} in format {content['format']}; "
                f"this is nomoat {nomoat.__version__}, which reads formats up to {_FORMAT}",
                hint="Use the newer nomoat for this workspace: pip install --upgrade nomoat",
            )
        seal = content.pop("seal")
        if seal != canonical_key(content):
            raise DamageError(f"{MANIFEST} has another checksum than when it was made")
        return Manifest(
            kind=content["kind"],
            key=content["key"],
            inputs=content["inputs"],
            meta=content["meta"],
            files={name: FileEntry(**entry) for name, entry in content["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(f"{MANIFEST} cannot be read ({type(error).__name__}: {error})") from error


def list_files(folder: Path, *, checksums: bool = True, sync: bool = False) -> dict[str, FileEntry]:
    """All files under `folder` but the manifest, sorted by name. Only plain files of plain folders are
    taken, so no name can lead out of the folder; anything else raises DamageError. With `sync`, the files and
    the folders' names are durable on return."""
    found: dict[str, FileEntry] = {}
    for path in sorted(_walk(folder)):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            if sync:
                sync_folder(path)
        elif not stat.S_ISREG(mode):
            raise DamageError(f"{name} is {'a link' if stat.S_ISLNK(mode) else 'no plain file'}")
        elif name != MANIFEST and path.name not in DESKTOP_LITTER:
            digest = hash_file(path, sync=sync) if checksums else ""
            found[name] = FileEntry(path.lstat().st_size, digest)
    return found


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            found.append(Path(entry.path))
            if entry.is_dir(follow_symlinks=False):
                found.extend(_walk(Path(entry.path)))
    return found
