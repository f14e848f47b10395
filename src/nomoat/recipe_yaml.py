"""From the text of a recipe to plain values, each with the place it came from.

The schema decides what a word means, not YAML's guesses: `no` is false where a key wants true or false, and
text where it wants text. So YAML 1.1's traps cannot happen: `07:00` stays a time, `1e-4` is a number.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.reader import ReaderError

from nomoat.errors import RecipeError
from nomoat.recipe_schema import KeyPath, dotted, kinds, schema_at

NULLS = ("", "~", "null", "Null", "NULL")
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
# At most 20 digits: Python refuses to read integers of thousands of digits, and no key needs them.
WHOLE = re.compile(r"[-+]?\d(_?\d){0,19}")
DECIMAL = re.compile(r"[-+]?(\d{1,20}(\.\d*)?|\.\d+)([eE][-+]?\d{1,4})?")
SHOWN_CHARS = 60


@dataclass(frozen=True)
class Place:
    """Where a value was written, and how it looks there."""

    source: str
    line: int
    shown: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, at a place."""

    place: Place
    key: str
    text: str

    def __str__(self) -> str:
        # "override sft.method=x" names its key already.
        named = not self.key or self.place.source.startswith(f"override {self.key}=")
        return f"{self.place}: {self.text}" if named else f"{self.place}: {self.key}: {self.text}"


@dataclass
class Values:
    """The values of a recipe under construction: a file first, overrides on top."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def read_file(self, text: str, source: str) -> None:
        """Take over the text of a whole recipe.

        Raises:
            RecipeError: it is not YAML, is empty, or is no mapping.
        """
        node = compose(text, source)
        if node is None:
            raise RecipeError(
                f'{source}: the file is empty; expected at least one key, such as "base: embedded"'
            )
        if not isinstance(node, yaml.MappingNode):
            colon = isinstance(node, yaml.ScalarNode) and ":" in node.value
            advice = "; a space must follow each colon" if colon else ""
            where = f"{source}:{node.start_mark.line + 1}"
            raise RecipeError(f'{where}: got {_shown(node)}; expected keys, such as "base: embedded"{advice}')
        self.values = self._build(node, (), source)

    def read_override(self, override: str) -> KeyPath | None:
        """Take over one `key=value`, its value in YAML. Gives the key's path; None where it is unusable."""
        key, equals, text = override.partition("=")
        source, path = f"override {override}", tuple(key.strip().split("."))
        if not equals or not all(path):
            self._problem(source, "expected key=value, such as sft.learning_rate=1e-4")
            return None
        node = compose(text, source)
        if node is None:
            self._problem(source, f"nothing follows the =; write {key}=null for no value")
            return None
        section = self.values
        for depth, name in enumerate(path[:-1], start=1):
            if schema_at(path[:depth]) and "object" not in kinds(schema_at(path[:depth])):
                self._problem(source, f"{dotted(path[:depth])} has no keys under it")
                return None
            if section.get(name) is None:
                section[name] = {}
            elif not isinstance(section[name], dict):
                return None  # the file's own value is wrong there, and is reported
            section = section[name]
            self.places.setdefault(path[:depth], Place(source, 0, "a mapping"))
        self.places = {old: place for old, place in self.places.items() if old[: len(path)] != path}
        section[path[-1]] = self._build(node, path, source, override=True)
        return path

    def _problem(self, source: str, text: str) -> None:
        self.problems.append(Problem(Place(source, 0, ""), "", text))

    def _build(self, node: yaml.Node, path: KeyPath, source: str, *, override: bool = False) -> Any:
        """The value of a node as the schema at `path` wants it; its place and mistakes are recorded."""
        place = Place(source, 0 if override else node.start_mark.line + 1, _shown(node))
        self.places.setdefault(path, place)
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(node, path, source, override=override)
        wanted = kinds(schema_at(path))
        if isinstance(node, yaml.SequenceNode):
            return [
                self._build(item, (*path, at), source, override=override)
                for at, item in enumerate(node.value)
            ]
        assert isinstance(node, yaml.ScalarNode), node
        if "object" in wanted and node.value == "" and node.style is None:
            self.problems.append(Problem(self.places[path], dotted(path), _EMPTY_SECTION))
            return {}
        if wanted == {"array"} and not _is_null(node):
            return self._build_items(node, path, place, split=override and node.style is None)
        return _scalar(node, wanted)

    def _build_items(self, node: yaml.ScalarNode, path: KeyPath, place: Place, *, split: bool) -> list[str]:
        """One word where a list is wanted: a list of that word, or of its parts between commas."""
        items = [item.strip() for item in node.value.split(",")] if split else [node.value]
        for at, item in enumerate(items):
            self.places[(*path, at)] = Place(place.source, place.line, json.dumps(item, ensure_ascii=False))
        return items

    def _build_mapping(self, node: yaml.MappingNode, path: KeyPath, source: str, *, override: bool) -> Any:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = 0 if override else key_node.start_mark.line + 1
            place = Place(source, line, _shown(value_node))
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(
                    Problem(place, dotted(path), "got a list or a mapping as a key; expected a word")
                )
                continue
            below = (*path, key_node.value)
            if key_node.value in found:
                first = f"; first on line {self.places[below].line}" if line else ""
                self.problems.append(Problem(place, dotted(below), f"written twice{first}"))
                continue
            self.places[below] = place
            found[key_node.value] = self._build(value_node, below, source, override=override)
        return found


_EMPTY_SECTION = "nothing is under it; indent its keys below it, or take the line out for the defaults"


def _is_null(node: yaml.ScalarNode) -> bool:
    return node.style is None and node.value in NULLS


def _scalar(node: yaml.ScalarNode, wanted: set[str]) -> Any:
    """The word as the kinds that are wanted; text where it fits none of them, for the models to refuse."""
    text = node.value
    if _is_null(node):
        return None
    if "boolean" in wanted and text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    if "integer" in wanted and WHOLE.fullmatch(text):
        return int(text)
    if "integer" in wanted and DECIMAL.fullmatch(text) and float(text).is_integer():
        return int(float(text))
    if "number" in wanted and DECIMAL.fullmatch(text):
        return float(text)
    return text


def _shown(node: yaml.Node) -> str:
    """A value as a message quotes it."""
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    assert isinstance(node, yaml.ScalarNode), node
    text = node.value if len(node.value) <= SHOWN_CHARS else node.value[:SHOWN_CHARS] + "…"
    if node.style is None and node.value == "":
        return "nothing"
    bare = (
        _is_null(node)
        or text.lower() in ("true", "false")
        or WHOLE.fullmatch(text)
        or DECIMAL.fullmatch(text)
    )
    return text if bare and node.style is None else json.dumps(text, ensure_ascii=False)


class _Loader(yaml.SafeLoader):
    """Composes nodes only; refuses aliases, which can make a small file endless, and tags."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise ComposerError(None, None, "aliases (*name) are not read; write the value out", mark)
        if getattr(event, "tag", None):
            raise ComposerError(None, None, "tags (!name) are not read; write the plain value", mark)
        return super().compose_node(parent, index)


def compose(text: str, source: str) -> yaml.Node | None:
    """The YAML nodes of a text, None where it holds only comments.

    Raises:
        RecipeError: with file, line and column of the first thing that is not YAML.
    """
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None, error
        # PyYAML's two halves of a sentence: "expected a single document", "but found another document".
        halves = (error.context, error.problem) if str(error.problem).startswith("but") else (error.problem,)
        problem = " ".join(half for half in halves if half).replace("'<stream end>'", "the end of the text")
        raise _syntax_error(text, source, mark.line, mark.column, problem) from None
    except ReaderError as error:
        line, last = text.count("\n", 0, error.position), text.rfind("\n", 0, error.position)
        problem = f"the character {chr(error.character)!r} cannot be written in YAML"
        raise _syntax_error(text, source, line, error.position - last - 1, problem) from None
    except RecursionError:
        raise RecipeError(f"{source}: brackets are nested too deep for a recipe") from None


def _syntax_error(text: str, source: str, line: int, column: int, problem: str) -> RecipeError:
    if "'\\t'" in problem:
        problem = "a tab; expected spaces"
    if source.startswith("override "):
        return RecipeError(f"{source}: not YAML: {problem}")
    lines = text.splitlines()
    excerpt = lines[line].strip()[:SHOWN_CHARS] if line < len(lines) else ""
    shown = f" (in: {excerpt})" if excerpt and excerpt.isprintable() else ""
    return RecipeError(f"{source}:{line + 1}:{column + 1}: not YAML: {problem}{shown}")
