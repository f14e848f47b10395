from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.families import save_tiny
from nomoat.errors import ModelError
from nomoat.model.load import (
    Machine,
    choose_machine,
    fingerprint,
    load_model,
    load_tokenizer,
    make_deterministic,
    resolve_base,
)

CPU = Machine("cpu", torch.float32)


def test_a_local_folder_is_found_relative_to_the_workspace(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path / "models" / "mine")
    assert resolve_base("models/mine", tmp_path) == tmp_path / "models" / "mine"


def test_a_missing_base_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='base: "./nowhere" is not there') as caught:
        resolve_base("./nowhere", tmp_path)
    assert caught.value.hint is not None
    assert '"embedded", a folder with config.json and *.safetensors, or a Hub id' in caught.value.hint


def test_a_hub_id_without_a_network_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match='"someone/something" is not a local folder, and the Hub cannot be reached'
    ):
        resolve_base("someone/something", tmp_path)


def test_pickle_weights_are_refused_by_name(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"found only pickle weights \(pytorch_model.bin\), and opening those runs code"
    ):
        resolve_base("base", tmp_path)


def test_a_folder_without_config_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        ModelError, match="empty has no config.json, so it is not a transformers model folder"
    ):
        resolve_base("empty", tmp_path)
    with pytest.raises(ModelError, match="model.gguf is a file; expected a folder"):
        resolve_base("model.gguf", tmp_path)


def test_truncated_weights_are_an_error_of_ours(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="does not open as a causal language model"):
        load_model(folder, CPU)


def test_no_tokenizer(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(folder)


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    config = (folder / "config.json").read_text()
    evil = config.replace(
        '"model_type": "llama"', '"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}'
    )
    (folder / "config.json").write_text(evil)
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(
        ModelError, match="its config.json does not open: The repository .* contains custom code"
    ):
        load_model(folder, CPU)


def test_the_fingerprint_sees_weights_and_tokenizer_but_not_the_readme(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    before = fingerprint(folder)
    (folder / "README.md").write_text("hello")
    assert fingerprint(folder) == before
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert fingerprint(folder) != before


def test_bf16_only_where_the_hardware_has_it() -> None:
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    if not torch.cuda.is_available():
        assert choose_machine().bf16 is native
    assert choose_machine("bfloat16").bf16
    assert not choose_machine("float32").bf16


@pytest.fixture
def unsettled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch as it is on its own, and again after the test."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    yield
    torch.use_deterministic_algorithms(False)


def settled() -> tuple[bool, bool, bool, str | None]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.usefixtures("unsettled")
def test_a_gpu_is_told_to_sum_in_one_order_and_a_cpu_is_left_alone() -> None:
    make_deterministic(CPU)
    assert settled() == (False, False, False, None)
    make_deterministic(Machine("cuda", torch.bfloat16))
    assert settled() == (True, True, True, ":4096:8")
