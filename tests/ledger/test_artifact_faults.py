"""kill -9 at any instant leaves whole artifacts and work to go on with, never anything between."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from nomoat.ledger.artifacts import ArtifactStore, canonical_key

KEY = canonical_key("one")
KILLED = 9

COMMIT_FOR_EVER = """
import itertools, os, pathlib, sys
from nomoat.ledger.artifacts import ArtifactStore, canonical_key
store = ArtifactStore(pathlib.Path(sys.argv[1]))
with store.lock():
    print("go", flush=True)
    for number in itertools.count(int(sys.argv[2])):
        key = canonical_key(number)
        work, scratch = store.work_dir("sft", key), store.scratch_dir("sft", key)
        (scratch / "step-1").write_bytes(bytes(100))
        (work / "deep").mkdir(exist_ok=True)
        for name in ("weights.bin", "deep/vocab.json", "empty"):
            (work / name).write_bytes(str(number).encode() * (0 if name == "empty" else 20_000))
        store.commit("sft", key, inputs={"base": "x"}, meta={"number": number})
"""


def killed_at(number: int, action: Callable[[], None]) -> bool:
    """Run `action` in a forked process that dies, as by kill -9, before its `number`-th call of the operating
    system or of an open file. False when it came to its end first."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(_frame: FrameType, event: str, called: Any) -> None:
            nonlocal seen
            touches = event == "c_call" and (
                called.__module__ in ("posix", "_io") or called.__name__ in ("write", "flush", "__exit__")
            )
            seen += touches
            if seen == number:
                os._exit(KILLED)

        sys.setprofile(count)
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), code
    return code == KILLED


def make_one(workspace: Path) -> None:
    store = ArtifactStore(workspace)
    with store.lock():
        store.sweep(max_age_s=3600)
        work = store.work_dir("sft", KEY)
        (work / "deep").mkdir(exist_ok=True)
        (work / "deep" / "weights.bin").write_text("weights")
        store.scratch_dir("sft", KEY)
        store.commit("sft", KEY, inputs={}, meta={})


@pytest.mark.slow
def test_killed_before_every_call_of_a_commit(tmp_path: Path) -> None:
    call, seen = 0, set()
    killed = True
    while killed:
        call += 1
        workspace = tmp_path / str(call)
        workspace.mkdir()
        killed = killed_at(call, lambda place=workspace: make_one(place))  # type: ignore[misc]
        store = ArtifactStore(workspace)
        found = store.get("sft", KEY)
        seen.add(found is not None)
        assert store.warnings == []
        make_one(workspace)
        again = ArtifactStore(workspace).get("sft", KEY)
        assert again is not None
        assert (again.path / "deep" / "weights.bin").read_text() == "weights"
        for folder in ("work", "trash"):
            assert list((workspace / ".nomoat" / folder).iterdir()) == [], (call, folder)
    assert call > 70  # the walk did go through it all
    assert seen == {True, False}


@pytest.mark.slow
def test_killed_before_every_call_of_a_clear_nothing_half_cleared_is_resumed(tmp_path: Path) -> None:
    call, killed = 0, True
    while killed:
        call += 1
        store = ArtifactStore(tmp_path / str(call))
        work = store.work_dir("sft", KEY)
        for name in "abc":
            (work / name).write_text(name)
        killed = killed_at(call, lambda store=store: store.clear_work("sft", KEY))  # type: ignore[misc]
        left = {path.name for path in store.work_dir("sft", KEY).iterdir()}
        assert left in (set(), {"a", "b", "c"}), call
    assert left == set()
    assert call > 20


@pytest.mark.slow
def test_killed_at_random_moments_every_artifact_in_sight_is_whole(
    tmp_path: Path, python: Callable[..., "subprocess.Popen[str]"]
) -> None:
    dice = random.Random(20261124)
    whole = 0
    for number in range(12):
        writer = python(COMMIT_FOR_EVER, str(tmp_path), str(number * 1000))
        assert writer.stdout is not None
        assert writer.stdout.readline() == "go\n"
        time.sleep(dice.uniform(0.001, 0.25))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        store = ArtifactStore(tmp_path)
        visible = (
            sorted((tmp_path / ".nomoat" / "artifacts").glob("*")) if number or store.house.exists() else []
        )
        keys = {f"sft-{key[:16]}": key for key in map(canonical_key, range(number * 1000 + 1000))}
        for path in visible:
            found = store.get("sft", keys[path.name])
            assert found is not None, store.warnings
            content = str(found.meta["number"]).encode() * 20_000
            assert (found.path / "weights.bin").read_bytes() == content
            whole += 1
        with store.lock():
            store.sweep(max_age_s=0)
        assert list((store.house / "work").iterdir()) == []
        assert list((store.house / "trash").glob("*")) == []
    assert whole > 50
