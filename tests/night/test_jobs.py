"""An artifact's key sees everything that its bytes depend on, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.families import save_tiny
from nomoat.model.load import fingerprint
from nomoat.night import code, jobs
from nomoat.night.code import code_version
from nomoat.night.jobs import Job, Outcome
from nomoat.night.sources import Sources

JOB = Job("data", "why", {"base": "base:1"}, {"max_seq_len": 512}, lambda *_: Outcome({}, ""))


def test_the_key_sees_kind_inputs_params_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        JOB.key,
        replace(JOB, kind="sft").key,
        replace(JOB, inputs={"base": "base:2"}).key,
        replace(JOB, params={"max_seq_len": 256}).key,
    }
    monkeypatch.setattr(jobs, "code_version", lambda: "another")
    assert len(keys | {JOB.key}) == 5


def test_the_key_does_not_see_words_or_functions() -> None:
    assert replace(JOB, why="because", run=lambda *_: Outcome({}, "x")).key == JOB.key


def test_data_is_known_by_its_bytes_not_by_its_name(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    sources = Sources((), (), (), (), (), (), (), (), None)
    a, b, c = (sources.fingerprints((str(tmp_path / name),)) for name in "abc")
    assert a == b
    assert a != c


def test_a_base_is_known_by_weights_tokenizer_and_template(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path)
    seen = {fingerprint(folder)}
    for name in ("tokenizer.json", "chat_template.jinja", "config.json", "model.safetensors"):
        path = folder / name
        path.write_bytes(path.read_bytes() + b" ")
        seen.add(fingerprint(folder))
    assert len(seen) == 5


def test_the_code_version_is_sixteen_hex_digits() -> None:
    assert len(code_version()) == 16
    int(code_version(), 16)


@pytest.mark.parametrize("library", ["torch", "scipy", "pyarrow"])
def test_the_code_version_sees_the_libraries_that_make_bytes(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, known = code_version(), code.version
    monkeypatch.setattr(code, "version", lambda name: "0.0.1" if name == library else known(name))
    assert code_version.__wrapped__() != before


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("train/loop.py", True),
        ("model/fused/attention.c", True),
        ("model/fused/numbers.h", True),
        ("data/report.py", True),
        ("night/report.py", False),
        ("cli/run.py", False),
    ],
)
def test_the_code_version_sees_the_code_that_makes_bytes(
    file: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, read = code_version(), Path.read_bytes

    def changed(path: Path) -> bytes:
        return read(path) + (b"#" if path.as_posix().endswith(f"/nomoat/{file}") else b"")

    monkeypatch.setattr(Path, "read_bytes", changed)
    assert (code_version.__wrapped__() != before) == counts
