"""Opening GGUF files through the C interface, and every way in which that fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import tiny_models
from nomoat.engine.cmodel import CModel, Context, Row, token_logits
from nomoat.engine.library import check_layout, library
from nomoat.errors import EngineError
from nomoat.quantize.convert import to_gguf


@pytest.fixture(scope="module")
def gguf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_models.build(tmp_path_factory.mktemp("llama"), "llama")
    return to_gguf(folder, folder / "model.gguf", type="F32").path


def failure(path: Path) -> str:
    with pytest.raises(EngineError) as caught:
        CModel(path)
    return caught.value.message


def test_what_is_not_a_gguf_file(tmp_path: Path) -> None:
    missing = tmp_path / "missing.gguf"
    assert failure(missing) == f"{missing}: no such file; expected a GGUF file"
    assert failure(tmp_path) == f"{tmp_path}: is a folder; expected a GGUF file"
    empty = tmp_path / "empty.gguf"
    empty.touch()
    assert failure(empty) == f"{empty}: begins with b''; expected b'GGUF': this is not a GGUF file"
    other = tmp_path / "other.gguf"
    other.write_bytes(b"\x80\x04\x95 pickle")
    assert (
        failure(other)
        == f"{other}: begins with b'\\x80\\x04\\x95 '; expected b'GGUF': this is not a GGUF file"
    )


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.999])
def test_a_file_cut_short(share: float, gguf_path: Path, tmp_path: Path) -> None:
    data = gguf_path.read_bytes()
    cut = tmp_path / "cut.gguf"
    size = int(len(data) * share)
    cut.write_bytes(data[:size])
    assert failure(cut).startswith(f"{cut}: a GGUF file cut short or damaged: {size} bytes (")


def test_an_architecture_that_llama_cpp_does_not_have(gguf_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(gguf_path.read_bytes().replace(b"llama", b"lluma"))
    size = path.stat().st_size
    assert failure(path) == f"{path}: llama.cpp cannot load this model (architecture 'lluma', {size} bytes)"


def test_a_failing_load_says_nothing_on_stderr(
    gguf_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf_path.read_bytes()[:-100])
    with pytest.raises(EngineError):
        CModel(cut)
    token_logits(gguf_path, [5, 6])
    assert capfd.readouterr() == ("", "")


def test_the_vocabulary_alone(gguf_path: Path) -> None:
    with CModel(gguf_path, vocab_only=True) as model:
        assert model.n_vocab == 403
        assert model.context_length == 256
        tokens = model.tokenize("Lily<|im_end|>")
        assert tokens[-1] == 2 and model.ends_generation(2)
        assert 2 not in model.tokenize("Lily<|im_end|>", parse_special=False)


def test_logits_do_not_depend_on_how_a_sequence_is_cut(gguf_path: Path) -> None:
    tokens = list(range(10, 60))
    with CModel(gguf_path) as model:
        whole = model.logits(tokens)
        assert whole.shape == (50, 403) and whole.dtype == np.float32
        with Context(model, n_ctx=64, n_batch=8, n_outputs=1, n_threads=1, exact=True) as context:
            for start in range(0, 50, 5):
                rows = [Row(tokens[start + i], start + i, 0, i == 4) for i in range(5)]
                context.decode(rows)
                assert np.allclose(context.logits(4), whole[start + 4], atol=1e-4)


def test_sequences_do_not_see_each_other(gguf_path: Path) -> None:
    with CModel(gguf_path) as model:
        alone = model.logits([20, 21, 22])[-1]
        opened = Context(model, n_ctx=64, n_batch=8, n_outputs=2, n_threads=1, n_sequences=2, exact=True)
        with opened as context:
            context.decode([Row(99, 0, 1, False), Row(98, 1, 1, False)])
            context.decode([Row(t, i, 0, i == 2) for i, t in enumerate([20, 21, 22])])
            assert np.allclose(context.logits(2), alone, atol=1e-4)


def test_what_is_forgotten_is_not_remembered(gguf_path: Path) -> None:
    with CModel(gguf_path) as model:
        expected = model.logits([20, 21, 30])[-1]
        with Context(model, n_ctx=64, n_batch=8, n_outputs=1, n_threads=1, exact=True) as context:
            context.decode([Row(t, i, 0, False) for i, t in enumerate([20, 21, 22, 23])])
            assert context.forget(0, from_position=2)
            context.decode([Row(30, 2, 0, True)])
            assert np.allclose(context.logits(0), expected, atol=1e-4)


def test_a_token_outside_the_vocabulary_is_refused(gguf_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        token_logits(gguf_path, [5, 403])
    assert caught.value.message == f"{gguf_path}: token 403 is refused; the vocabulary has ids 0 to 402"


def test_another_layout_of_the_librarys_structs_is_found() -> None:
    params = library().llama_context_default_params()
    with pytest.raises(EngineError) as caught:
        check_layout("llama_context_params", params, {"n_ctx": 512, "n_threads": 7})
    assert str(caught.value) == (
        "llama_context_params.n_threads: the library's default is 4; expected 7\n"
        "  this nomoat was built against another xllamacpp; install the version in constraints.txt"
    )
