from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from helpers.families import save_tiny
from nomoat.errors import BudgetError, ModelError
from nomoat.model.load import (
    Machine,
    choose_machine,
    count_parameters,
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


def in_two_shards(folder: Path) -> Path:
    """The tiny model with its tensors in two files and an index."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {}
    for number, names in enumerate((list(whole)[::2], list(whole)[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: whole[name] for name in names}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    write_index(folder, {"metadata": {}, "weight_map": index})
    return folder


def write_index(folder: Path, content: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def test_whole_shards_are_taken(tmp_path: Path) -> None:
    one, two = save_tiny("llama", tmp_path / "one"), in_two_shards(save_tiny("llama", tmp_path / "two"))
    assert resolve_base("two", tmp_path) == two
    assert count_parameters(two) == count_parameters(one)
    assert (
        load_model(two, CPU)
        .get_input_embeddings()
        .weight.equal(load_model(one, CPU).get_input_embeddings().weight)
    )


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda whole: whole[: len(whole) // 2],
    "with bytes behind": lambda whole: whole + b"\0",
    "empty": lambda whole: b"",
    "of zeros": lambda whole: bytes(len(whole)),
    "of a header that is no JSON": lambda whole: whole[:8] + b"x" * (len(whole) - 8),
    "a web page": lambda whole: b"<!DOCTYPE html><html>Not found</html>",
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["model.safetensors", SECOND])
def test_damaged_weights_are_refused_from_their_header(how: str, name: str, tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    path = (in_two_shards(folder) if name == SECOND else folder) / name
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    with pytest.raises(
        ModelError, match=f"^base: {re.escape(str(path))} is damaged \\({path.stat().st_size:,} bytes\\): "
    ) as caught:
        resolve_base("base", tmp_path)
    assert caught.value.hint == "Copy or download it again."


def test_a_git_lfs_pointer_is_called_one(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match="model.safetensors is damaged") as caught:
        resolve_base("base", tmp_path)
    assert caught.value.hint == "It is Git LFS's note of where the file is: run `git lfs pull` in its folder."


def test_missing_shards_are_named(tmp_path: Path) -> None:
    folder = in_two_shards(save_tiny("llama", tmp_path / "base"))
    (folder / SECOND).unlink()
    with pytest.raises(
        ModelError, match=f"^base: {folder} lacks {SECOND}, which its model.safetensors.index.json names"
    ):
        resolve_base("base", tmp_path)


def test_shards_without_an_index_are_refused(tmp_path: Path) -> None:
    folder = in_two_shards(save_tiny("llama", tmp_path / "base"))
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(
        ModelError,
        match=f"^base: {folder} has neither model.safetensors nor model.safetensors.index.json; found {FIRST}, "
        f"{SECOND}",
    ):
        resolve_base("base", tmp_path)


def test_a_shard_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = in_two_shards(save_tiny("llama", tmp_path / "base"))
    (folder / SECOND).write_bytes((folder / FIRST).read_bytes())
    with pytest.raises(
        ModelError,
        match=f"^base: {folder / SECOND} does not hold .+, which model.safetensors.index.json places",
    ):
        resolve_base("base", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "a text",
        {},
        {"metadata": {}, "weight_map": {}},
        {"weight_map": {"a": FIRST}},
        {"metadata": {}, "weight_map": {"a": 1}},
        {"metadata": {}, "weight_map": {"a": f"../base/{FIRST}"}},
    ],
)
def test_an_index_that_is_none_is_refused(content: object, tmp_path: Path) -> None:
    folder = in_two_shards(save_tiny("llama", tmp_path / "base"))
    write_index(folder, content)
    with pytest.raises(ModelError, match=f"^base: {folder}/model.safetensors.index.json is damaged: "):
        resolve_base("base", tmp_path)


def test_an_index_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    folder = in_two_shards(save_tiny("llama", tmp_path / "base"))
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_m')
    with pytest.raises(ModelError, match="index.json is damaged: Unterminated string"):
        resolve_base("base", tmp_path)


def test_no_tokenizer(tmp_path: Path) -> None:
    """transformers says it in five lines, of which the first is nothing without the others."""
    folder = save_tiny("llama", tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(
        ModelError,
        match=r"its tokenizer does not open: Couldn't instantiate the backend tokenizer from one of: \(1\) a "
        r"`tokenizers` library serialization file, .* You need to have sentencepiece or tiktoken installed to "
        r"convert a slow tokenizer to a fast one\.\n",
    ) as caught:
        load_tokenizer(folder)
    assert caught.value.hint == "Expected tokenizer.json (and tokenizer_config.json) beside config.json."


def test_a_tokenizer_that_lacks_a_key_says_which(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="its tokenizer does not open: it has no key 'added_tokens'"):
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


def test_a_tensor_that_is_not_there_is_not_made_up(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    lost = "model.layers.1.mlp.up_proj.weight"
    save_file({n: t for n, t in tensors.items() if n != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks 1 of its model's tensors, such as {lost}"):
        load_model(folder, Machine("cpu", torch.float32))


@pytest.mark.parametrize(
    "wrong", [{"hidden_size": "abc"}, {"num_hidden_layers": "2"}, {"num_attention_heads": None}]
)
def test_a_config_with_values_of_another_kind_is_the_folders_fault(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | wrong))
    with pytest.raises(ModelError, match="its config.json does not open|does not open as a causal"):
        load_model(folder, Machine("cpu", torch.float32))


def test_a_base_that_does_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(BudgetError, match="does not fit into the memory of this machine"):
        load_model(save_tiny("llama", tmp_path / "base"), Machine("cpu", torch.float32))
