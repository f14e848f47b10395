"""The models of a workspace by the names that `nomoat serve` gives them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from nomoat.cli.adapters import Adapter
from nomoat.cli.ledgers import open_ledger
from nomoat.cli.served import BASE, CHAMPION, LATEST, find_base, find_generation
from nomoat.serve.models import ModelName, ServedModel

_FRESH_S = 1.0  # a new generation, or another champion, is served so soon


@final
class WorkspaceModels:
    """`champion` (what `nomoat chat` opens), each generation by its name, newest first, `base`, and adapters.

    Raises LedgerError where the workspace is not there or its ledger cannot be read."""

    def __init__(self, workspace: Path, adapters: Sequence[Adapter] = ()) -> None:
        self._workspace = workspace
        self._adapters = {adapter.name: adapter for adapter in adapters}
        self._read_at = -_FRESH_S
        self._generations: list[ModelName] = []
        self._champion: str | None = None

    def names(self) -> list[ModelName]:
        found = self._read()
        aliases = [ModelName(CHAMPION, found[0].created_at)] if found else []
        return [*aliases, *found, ModelName(BASE), *map(ModelName, self._adapters)]

    def resolve(self, name: str) -> str | None:
        found = self._read()
        if name == BASE:
            return _base_of(found)
        if name == CHAMPION:
            return self._champion
        if name in self._adapters:
            return name
        return next((one.name for one in found if one.name == name), None)

    def weights_of(self, resolved: str) -> str:
        adapter = self._adapters.get(resolved)
        return resolved if adapter is None else adapter.on

    def find(self, resolved: str) -> ServedModel:
        weights = self.weights_of(resolved)
        on_it = tuple((one.name, one.gguf) for one in self._adapters.values() if one.on == weights)
        served = replace(self._find(weights), adapters=on_it)
        if resolved == weights:
            return served
        return replace(served, name=resolved, adapter=resolved, verdict=None, is_champion=False)

    def _find(self, resolved: str) -> ServedModel:
        if resolved == BASE:
            return find_base(self._workspace, LATEST)
        if resolved.startswith(f"{BASE} of "):
            return find_base(self._workspace, resolved.removeprefix(f"{BASE} of "))
        return find_generation(self._workspace, resolved)

    def _read(self) -> list[ModelName]:
        if time.monotonic() - self._read_at >= _FRESH_S:
            with open_ledger(self._workspace) as ledger:
                rows = ledger.generations() if ledger else ()
                champion = ledger.judgements.champion() if ledger else None
            self._generations = [ModelName(row.name, row.created_at) for row in rows]
            self._champion = self._generations[0].name if rows else None
            if champion is not None:
                names = {row.id: row.name for row in rows}
                self._champion = names.get(champion.generation_id or 0) or _base_of(self._generations)
            self._read_at = time.monotonic()
        return self._generations


def _base_of(generations: list[ModelName]) -> str:
    """The newest generation's base: each may have been made from another one."""
    return f"{BASE} of {generations[0].name}" if generations else BASE
