"""Hands for the tests of the ledger's room: a store, a ledger, a small disk, a user without rights."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

import nomoat
from nomoat.ledger.artifacts import Artifact, ArtifactStore, canonical_key
from nomoat.ledger.store import Ledger

SOURCE = str(Path(nomoat.__file__).parents[1])
NOBODY = 65534


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / ".nomoat" / "ledger.db") as opened:
        yield opened


@pytest.fixture
def make(store: ArtifactStore) -> Callable[..., Artifact]:
    """Commit an artifact whose key follows from its name: two files, one in a folder."""

    def commit(kind: str = "sft", name: str = "a", inputs: dict[str, str] | None = None) -> Artifact:
        key = canonical_key([kind, name])
        work = store.work_dir(kind, key)
        (work / "tokenizer").mkdir(exist_ok=True)
        (work / "weights.bin").write_bytes(name.encode() * 1000)
        (work / "tokenizer" / "vocab.json").write_text("{}")
        return store.commit(kind, key, inputs=inputs or {}, meta={"name": name})

    return commit


@pytest.fixture
def begin(ledger: Ledger) -> Callable[..., int]:
    """Start a night and give its number."""

    def start(alone: bool = True, seed: int = 1) -> int:
        started = ledger.start_night(
            name="story",
            recipe_text="name: story\n",
            recipe_resolved={"name": "story"},
            code_version="0.1.0",
            seed=seed,
            machine={"cpu": "test"},
            alone=alone,
        )
        return started.night.id

    return start


@pytest.fixture
def python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start another Python process on a piece of code; all of them are gone when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": SOURCE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may reach (pytest's own is closed to all but its user)."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def without_rights() -> Callable[[], AbstractContextManager[None]]:
    """Be a user whom permissions bind: root, whom they do not, becomes nobody for the time being."""

    @contextmanager
    def be_nobody() -> Iterator[None]:
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    return be_nobody


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on a disk of 1 MiB with 64 KiB free. Where no disk may be mounted, one that says it is full
    when a file is made durable (as a disk with delayed allocation does)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0:
        (disk / "ballast").write_bytes(bytes((1 << 20) - (64 << 10)))
        yield disk
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        return

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    yield disk
