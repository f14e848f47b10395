"""Who is champion when a night begins: by day people vote, and the next night goes by what they said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from nomoat.errors import ArtifactError
from nomoat.evaluate.gate import GateVerdict
from nomoat.evaluate.gatebook import verdict_on
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.rows import GenerationRow
from nomoat.ledger.store import Ledger
from nomoat.night.gate import find_rival


def crown_by_votes(ledger: Ledger, store: ArtifactStore, night_id: int, note: Callable[[str], None]) -> None:
    """Make the newest generation champion that is shown, by what was said since its own night, to be better than the
    present one. It must be newer than that; one whose files are gone is told and left out."""
    champion = ledger.judgements.champion()
    since = (champion.generation_id if champion else None) or 0
    newest_first = sorted(ledger.generations(), key=lambda one: one.id, reverse=True)
    for generation in newest_first:
        if generation.id <= since or not generation.served_file or has_stood(ledger, generation):
            continue
        verdict = verdict_on(ledger, generation, store)
        if verdict.verdict != "promote":
            continue
        try:
            find_rival(store, ledger, generation.id)
        except ArtifactError:
            note(
                f"{generation.name} is shown to be better than {verdict.rival}, but its files are gone or damaged: "
                "run its night again to make it anew"
            )
            continue
        crown(ledger, generation, verdict, night_id)
        note(f"{verdict.said} It is the champion from now on.")
        return


def has_stood(ledger: Ledger, generation: GenerationRow) -> bool:
    """Whether it is or was the champion. The gate makes it that once: after somebody took it back, it comes back by
    their word only."""
    return any(row.generation_id == generation.id for row in ledger.judgements.champions())


def crown(ledger: Ledger, generation: GenerationRow, verdict: GateVerdict, night_id: int) -> None:
    """Make a generation champion because the gate says so."""
    ledger.judgements.crown(
        generation.id, by="gate", said=verdict.said, night_id=night_id, verdict=asdict(verdict)
    )
