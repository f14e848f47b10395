"""A generation in the form that another program opens: a folder of its own, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nomoat.chat.template import ChatTemplate
from nomoat.errors import ArtifactError
from nomoat.ledger.files import make_folder
from nomoat.model.load import load_tokenizer
from nomoat.share.ollama import modelfile


@dataclass(frozen=True)
class Source:
    """What is exported: a GGUF file, and the transformers folder it was made from; None where that is not to
    be had."""

    name: str
    gguf: Path
    tokenizer_dir: Path
    context_length: int
    model_dir: Path | None


@dataclass(frozen=True)
class Exported:
    """The files, relative to the folder, and the command that opens them."""

    folder: Path
    files: list[str]
    next: str


def export(source: Source, form: str, out: Path) -> Exported:
    """Write the folder `out`, which must not be there yet, for a program of `FORMS`.

    Raises:
        ArtifactError: `out` is there already, or cannot be written; or this form needs the weights in
            transformers' form and there are none.
        DataError: the chat template cannot be said in the program's language.
    """
    with _new_folder(out) as folder:
        command = FORMS[form](source, folder)
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return Exported(out, files, command.format(out=out))


def _for_ollama(source: Source, folder: Path) -> str:
    file = f"{source.name}.gguf"
    template = ChatTemplate.of(load_tokenizer(source.tokenizer_dir))
    text = modelfile(file, template, n_ctx=source.context_length)
    shutil.copyfile(source.gguf, folder / file)
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    return f"ollama create {source.name} -f {{out}}/Modelfile && ollama run {source.name}"


def _for_llamacpp(source: Source, folder: Path) -> str:
    """The file has the chat template and the stop tokens in it."""
    shutil.copyfile(source.gguf, folder / f"{source.name}.gguf")
    return f"llama-cli -m {{out}}/{source.name}.gguf --jinja"


def _for_lmstudio(source: Source, folder: Path) -> str:
    """LM Studio looks for publisher/model/file.gguf."""
    place = folder / "nomoat" / source.name
    place.mkdir(parents=True)
    shutil.copyfile(source.gguf, place / f"{source.name}.gguf")
    return f"lms import {{out}}/nomoat/{source.name}/{source.name}.gguf"


def _for_transformers(source: Source, folder: Path) -> str:
    _write_weights(source, folder)
    return "python -c \"from transformers import pipeline; pipeline('text-generation', '{out}')\""


def _for_vllm(source: Source, folder: Path) -> str:
    _write_weights(source, folder)
    return "vllm serve {out}"


FORMS: dict[str, Callable[[Source, Path], str]] = {
    "ollama": _for_ollama,
    "llamacpp": _for_llamacpp,
    "lmstudio": _for_lmstudio,
    "vllm": _for_vllm,
    "transformers": _for_transformers,
}
"""program -> what writes its files and gives the command that opens them, with {out} for the folder."""


def _write_weights(source: Source, folder: Path) -> None:
    """The model folder, with its stop tokens where generation looks for them."""
    if source.model_dir is None:
        raise ArtifactError(
            f"{source.name}: its weights in transformers' form are not in this workspace",
            hint="Export a generation, such as gen-0001, or take the base from where it came.",
        )
    shutil.copytree(source.model_dir, folder, dirs_exist_ok=True)
    template = ChatTemplate.of(load_tokenizer(folder))
    path = folder / "generation_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config["eos_token_id"] = list(template.stop_token_ids)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if template.origin == "default":
        (folder / "chat_template.jinja").write_text(template.source, encoding="utf-8")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears under its name when it is finished."""
    if out.exists():
        raise ArtifactError(f"{out}: is there already", hint="Give another folder: --out DIR")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    try:
        yield partial
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
