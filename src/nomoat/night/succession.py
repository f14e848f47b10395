"""Who is champion when a night begins: by day people vote, and the next night goes by what they said."""

from __future__ import annotations

from dataclasses import asdict

from nomoat.errors import ArtifactError
from nomoat.evaluate.gate import GateVerdict
from nomoat.evaluate.gatebook import verdict_on
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.rows import GenerationRow
from nomoat.ledger.store import Ledger
from nomoat.night.gate import find_rival


def crown_by_votes(ledger: Ledger, store: ArtifactStore, night_id: int) -> list[str]:
    """Make the newest generation champion that is shown, by what was said since its own night, to be better than the
    present one, and say so. It must be newer than that. One whose files are gone is left out, and so is one for which
    votes count that are in doubt: a person must look at those first."""
    champion = ledger.judgements.champion()
    since = (champion.generation_id if champion else None) or 0
    newest_first = sorted(ledger.generations(), key=lambda one: one.id, reverse=True)
    said: list[str] = []
    for generation in newest_first:
        if generation.id <= since or not generation.served_file or has_stood(ledger, generation):
            continue
        verdict = verdict_on(ledger, generation, store)
        if verdict.verdict != "promote":
            continue
        better = f"{generation.name} is shown to be better than {verdict.rival}"
        if verdict.doubts:
            doubts = "; ".join(verdict.doubts)
            said.append(
                f"{better} if you trust these votes: {doubts}. If so: nomoat promote {generation.name}"
            )
        elif not _is_whole(generation, ledger, store):
            said.append(f"{better}, but its files are gone or damaged: run its night again to make it anew")
        else:
            crown(ledger, generation, verdict, night_id)
            return [*said, f"{verdict.said} It is the champion since this night began."]
    return said


def has_stood(ledger: Ledger, generation: GenerationRow) -> bool:
    """Whether it is or was the champion. The gate makes it that once: after somebody took it back, it comes back by
    their word only."""
    return any(row.generation_id == generation.id for row in ledger.judgements.champions())


def crown(ledger: Ledger, generation: GenerationRow, verdict: GateVerdict, night_id: int) -> None:
    """Make a generation champion because the gate says so."""
    ledger.judgements.crown(
        generation.id, by="gate", said=verdict.said, night_id=night_id, verdict=asdict(verdict)
    )


def _is_whole(generation: GenerationRow, ledger: Ledger, store: ArtifactStore) -> bool:
    try:
        find_rival(store, ledger, generation.id)
    except ArtifactError:
        return False
    return True
