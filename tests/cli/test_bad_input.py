"""What owners get wrong, typed into the real program: exit code 2, the reason on stderr, no traceback.

The words of each reader and check are tested in its own room; here it is that they reach the owner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import forked
from helpers.families import save_tiny

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "nomoat.cli.main")
MOUNTED = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'
FORMATS = """\
  Expected one of these (rename your columns to match):
    text              {"text": "..."}
    prompt-completion {"prompt": "...", "completion": "..."}
    alpaca            {"instruction": "...", "input": "...", "output": "..."}
"""


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def started(command: tuple[str, ...], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env=ENVIRONMENT,
        timeout=300,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What follows 'Error: ' on stderr, of a command that ended as it must."""
    assert "Traceback" not in done.stderr, done.stderr
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("Error: ") == 1, done.stderr
    return done.stderr.partition("Error: ")[2]


def nomoat(*words: str, cwd: Path) -> str:
    return refused(forked.run((*PROGRAM, *words), cwd=cwd, env=ENVIRONMENT, timeout=300))


def on_a_small_disk(options: str, disk: Path, *words: str) -> str:
    """As `nomoat`, with a RAM disk at `disk` that only this process sees; skips where none may be mounted."""
    disk.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("there is no `unshare` here, so a disk cannot be mounted for one process")
    mounted = ("unshare", "--map-root-user", "--mount", "sh", "-c", MOUNTED, "sh", options, str(disk))
    tried = started((*mounted, "true"), disk.parent)
    if tried.returncode != 0:
        pytest.skip(f"no disk may be mounted here: {tried.stderr.strip()}")
    return refused(started((*mounted, *PROGRAM, *words), disk.parent))


def row(number: int, completion: str = "Very well.") -> str:
    return json.dumps({"prompt": f"Say {number}", "completion": completion})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace with sixty good rows."""
    (tmp_path / "rows.jsonl").write_text("".join(f"{row(number)}\n" for number in range(60)))
    return tmp_path


CUT_ROW = row(30)[:-6]
BAD_FILES = {
    "cut_short.jsonl": ("".join(f"{row(n)}\n" for n in range(30)) + CUT_ROW).encode(),
    "wrong_keys.jsonl": b'{"frage": "a", "antwort": "b"}\n' * 60,
    "empty.jsonl": b"",
    "binary.jsonl": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)),
}
SAID = {
    "cut_short.jsonl": "cut_short.jsonl:31: ends in the middle of a value: "
    f"{CUT_ROW[-40:]!r}.\n"
    "  The file is cut short: copy or download it again, or delete its last row.\n",
    "wrong_keys.jsonl": "wrong_keys.jsonl: the rows have the columns frage, antwort, which is no format that is "
    f"known.\n{FORMATS}",
    "empty.jsonl": "empty.jsonl: is empty; expected rows of data.\n",
    "binary.jsonl": "binary.jsonl: is not text: it has a zero byte at offset 8.\n",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_init_refuses_a_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BAD_FILES[name])
    assert nomoat("init", name, cwd=tmp_path).startswith(SAID[name])
    assert not (tmp_path / "nomoat.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_night_refuses_a_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BAD_FILES[name])
    said = nomoat("run", "--data", name, cwd=tmp_path)
    assert said.startswith(f"{tmp_path}/{SAID[name]}")


@pytest.mark.slow
def test_rows_that_are_all_longer_than_the_context_are_refused(tmp_path: Path) -> None:
    long = "".join(f"{row(number, 'once upon a time ' * 400)}\n" for number in range(40))
    (tmp_path / "long.jsonl").write_text(long)
    assert nomoat("check", "--data", "long.jsonl", cwd=tmp_path).startswith(
        "40 of 40 rows are longer than 512 tokens and would be cut (100%); data.max_truncated allows 50%.\n"
    )


@pytest.mark.slow
def test_a_length_beyond_the_context_is_refused(folder: Path) -> None:
    assert nomoat("run", "--data", "rows.jsonl", "sft.max_seq_len=513", cwd=folder) == (
        "sft.max_seq_len: 513 tokens are more than the base's context of 512\n"
        "  Set sft.max_seq_len to 512 or less.\n"
    )


@pytest.mark.parametrize("verb", ["check", "run"])
def test_an_unknown_key_is_refused(verb: str, tmp_path: Path) -> None:
    (tmp_path / "nomoat.yaml").write_text("sft:\n  lora_r: 8\n  learning_rat: 1e-4\n")
    said = 'nomoat.yaml:3: sft.learning_rat: unknown key. Did you mean "learning_rate"?\n'
    assert nomoat(verb, cwd=tmp_path) == said
    assert not (tmp_path / ".nomoat").exists()


def test_a_recipe_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nomoat.yaml").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert nomoat("run", cwd=tmp_path) == "nomoat.yaml:1: got the byte 0x89; expected text in UTF-8\n"


@pytest.mark.slow
def test_a_base_that_is_not_there_is_refused(folder: Path) -> None:
    assert nomoat("run", "--base", "models/smol/2", "--data", "rows.jsonl", cwd=folder) == (
        'base: "models/smol/2" is not there\n'
        '  Expected "embedded", a folder with config.json and *.safetensors, or a Hub id such as "org/name".\n'
    )


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["check", "run"])
def test_damaged_weights_are_refused_before_anything_else(verb: str, folder: Path) -> None:
    weights = save_tiny("llama", folder / "base") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert nomoat(verb, "--base", "base", "--data", "rows.jsonl", cwd=folder) == (
        f"base: {weights} is damaged ({weights.stat().st_size:,} bytes): Error while deserializing header: "
        "incomplete metadata, file not fully covered\n"
        "  Copy or download it again.\n"
    )
    assert list((folder / ".nomoat").iterdir()) == []


@pytest.mark.slow
def test_pickled_weights_are_never_opened(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "config.json").write_text('{"model_type": "llama"}')
    # Opening it would make a file.
    (folder / "old" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    assert nomoat("run", "--base", "old", "--data", "rows.jsonl", cwd=folder) == (
        "base: old has no *.safetensors weights; found only pickle weights (pytorch_model.bin), and opening "
        "those runs code\n"
        "  Convert them once where you trust them: "
        "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)\n"
    )
    assert not (folder / "opened").exists()


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize(
    ("taken", "place"), [("night", "night"), ("night", "night/two"), ("night/.nomoat", "night")]
)
def test_a_file_where_the_workspace_should_be_is_told_at_once(
    verb: str, taken: str, place: str, folder: Path
) -> None:
    (folder / taken).parent.mkdir(exist_ok=True)
    (folder / taken).write_text("")
    said = nomoat(verb, "--data", "rows.jsonl", "--workspace", place, cwd=folder)
    assert said == (
        f"{place}/.nomoat: cannot be a folder: {Path(taken).parent} holds a file where one is needed\n"
        "  Give a folder for the workspace, or move that file away.\n"
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc, where no folder can be made")
@pytest.mark.parametrize("words", [("check",), ("run",), ("chat", "base")])
def test_a_workspace_where_no_folder_can_be_made_is_told(words: tuple[str, ...], folder: Path) -> None:
    assert nomoat(*words, "--workspace", "/proc", cwd=folder) == (
        "/proc/.nomoat: this folder cannot be made (No such file or directory)\n"
        "  Give another folder for the workspace.\n"
    )


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_workspace_that_is_a_link_to_itself_is_told(verb: str, folder: Path) -> None:
    (folder / "night").symlink_to("night")
    assert nomoat(verb, "--workspace", "night/one", cwd=folder) == (
        "night/one/.nomoat: this folder cannot be made (Too many levels of symbolic links)\n"
        "  Give another folder for the workspace.\n"
    )


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_workspace_on_a_read_only_disk_is_told_at_once(verb: str, folder: Path) -> None:
    words = (verb, "--data", "rows.jsonl", "--workspace", "disk")
    assert on_a_small_disk("size=64k,ro", folder / "disk", *words) == (
        "disk/.nomoat: cannot be written: the disk is mounted read-only\n"
        "  Remount it writable, or move the workspace to another disk. Then run the same command again: "
        "finished stages are kept.\n"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_workspace_of_someone_else_is_told_at_once(folder: Path) -> None:
    (folder / "theirs").mkdir(mode=0o555)
    said = nomoat("run", "--data", "rows.jsonl", "--workspace", "theirs", cwd=folder)
    assert said.startswith(f"theirs/.nomoat: no permission for user {os.geteuid()}\n")


@pytest.mark.slow
def test_a_full_disk_ends_the_night_with_the_way_on(folder: Path) -> None:
    words = ("run", "--data", "rows.jsonl", "--workspace", "disk")
    first, advice = on_a_small_disk("size=2m", folder / "disk", *words).splitlines()
    assert first.startswith(f"{folder}/disk/.nomoat/work/quantize-")
    assert first.endswith("/base-Q8_0.gguf: the disk is full.")
    assert advice == "  Free some space, then run the same command again."
