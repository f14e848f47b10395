"""Reading nomoat.yaml and `key=value` overrides; every mistake is told with its file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nomoat.errors import RecipeError
from nomoat.recipe import Recipe
from nomoat.recipe_schema import KeyPath, did_you_mean, dotted, expected, unknown_key
from nomoat.recipe_yaml import Place, Problem, Values

MAX_PROBLEMS = 20
MAX_BYTES = 1 << 20  # a recipe has a few kB; a larger file is a data file given by mistake
INIT_HINT = "`nomoat init DATA` writes one"
FILE_KEYS: tuple[KeyPath, ...] = (
    ("base",), ("data", "train"), ("data", "chat_template"), ("prefer", "train"), ("prefer", "prompts"),
    ("reward", "train"), ("reinforce", "prompts"), ("pretrain", "train"), ("evaluate", "prompts"),
)  # fmt: skip


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, the text it was read from ('' where there is no file), and where that file is."""

    recipe: Recipe
    text: str
    path: Path | None

    @property
    def folder(self) -> Path:
        """Where relative paths in the recipe start: the file's folder; the current one without a file."""
        return Path.cwd() if self.path is None else self.path.absolute().parent

    def locate(self, name: str) -> str:
        """A file or folder that the recipe names, as a path usable from here.

        What is not on disk comes back unchanged: `embedded`, or the Hub id of a model or data set.
        """
        found = self.folder / Path(name).expanduser()
        return str(found) if name and found.exists() else name

    def resolved_yaml(self) -> str:
        """Every key with its value, defaults included, as YAML that loads to the same recipe."""
        # ASCII: PyYAML writes some Unicode line breaks (U+0085) so that it does not read them back itself.
        return yaml.safe_dump(self.recipe.model_dump(mode="json"), sort_keys=False, width=1000)


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe file, or start from the defaults where `path` is None; then apply `key=value` overrides.

    A relative path in the file starts from the file's folder, one in an override from the current folder.

    Raises:
        RecipeError: the file cannot be read or is not YAML, or up to 20 lines that each say where, what
            was found and what was expected.
    """
    values = Values()
    text = ""
    if path is not None:
        text = _read_text(path)
        values.read_file(text, str(path))
    for override in overrides:
        target = values.read_override(override)
        if path is not None and target in FILE_KEYS:
            _start_from_here(values.values, target)
    problems = values.problems
    try:
        recipe = Recipe.model_validate(values.values, strict=True)
    except ValidationError as error:
        problems = problems + [_problem(found, values.places) for found in error.errors(include_url=False)]
    if problems:
        raise RecipeError(_told(problems))
    return LoadedRecipe(recipe, text, path)


def _read_text(path: Path) -> str:
    folder = "here" if path.parent == Path() else f"in {path.parent}"
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_BYTES:
            raise RecipeError(
                f"{path}: got {size_bytes / 1e6:.1f} MB; expected a recipe of a few kB. Is it a data file?",
                hint="`nomoat init DATA` writes a recipe for a data file",
            )
        raw = path.read_bytes()
    except FileNotFoundError:
        raise RecipeError(f"there is no {path.name} {folder}", hint=INIT_HINT) from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start]
        raise RecipeError(f"{path}:{line}: got the byte 0x{byte:02x}; expected text in UTF-8") from None


def _start_from_here(values: dict[str, Any], target: KeyPath) -> None:
    """Make the existing files that an override names absolute: its owner typed them in the current folder."""
    *sections, key = (str(part) for part in target)
    for section in sections:
        values = values[section]
    found = values[key]
    values[key] = [_absolute(name) for name in found] if isinstance(found, list) else _absolute(found)


def _absolute(name: Any) -> Any:
    if not isinstance(name, str) or name in ("", "embedded") or not Path(name).exists():
        return name
    return str(Path(name).absolute())


def _problem(found: Mapping[str, Any], places: Mapping[KeyPath, Place]) -> Problem:
    """One pydantic error as a line for the owner."""
    path: KeyPath = found["loc"]
    if found["type"] == "value_error":
        return _rule_problem(path, str(found["ctx"]["error"]), places)
    if found["type"] == "missing":
        return Problem(places[path[:-1]], dotted(path), f"is missing; expected {expected(path)}")
    if found["type"] == "extra_forbidden":
        return Problem(places[path], dotted(path), unknown_key(path))
    while path not in places:  # pydantic appends the branch of a union: ("sft", "lora_target_modules", "str")
        path = path[:-1]
    suggestion = did_you_mean(path, str(found["input"]))
    return Problem(
        places[path], dotted(path), f"got {places[path].shown}; expected {expected(path)}{suggestion}"
    )


def _rule_problem(section: KeyPath, text: str, places: Mapping[KeyPath, Place]) -> Problem:
    """A rule between keys: told at the first key it names that was written, else at the section."""
    named = [(*section, word) for word in re.findall(r"\w+", text)]
    place = next((places[path] for path in named if path in places), None)
    return Problem(place or places[section], dotted(section), text)


def _told(problems: list[Problem]) -> str:
    """The lines of a message, in the order of the file, one for each place and key."""
    lines = list(dict.fromkeys(str(problem) for problem in sorted(problems, key=_order)))
    more = [f"... and {len(lines) - MAX_PROBLEMS} more"] if len(lines) > MAX_PROBLEMS else []
    return "\n".join([*lines[:MAX_PROBLEMS], *more])


def _order(problem: Problem) -> tuple[bool, int]:
    return problem.place.line == 0, problem.place.line
