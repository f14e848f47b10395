"""The ledger: every night, stage, artifact, generation and score, with its cost and lineage, as plain SQL.

Each call is one transaction, and gives frozen dataclasses. A second process may read while a night writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, Engine, Select, Table, delete, insert, select, update

from nomoat.errors import LedgerError
from nomoat.ledger.artifacts import Artifact
from nomoat.ledger.canonical import check_json
from nomoat.ledger.clock import now_iso
from nomoat.ledger.database import empty_wal, make_engine, parse_place, refuse_damage, told, use_wal
from nomoat.ledger.judgements import Judgements
from nomoat.ledger.lineage import read_lineage
from nomoat.ledger.migrate import revision_of, upgrade
from nomoat.ledger.process import this_process
from nomoat.ledger.rows import (
    ArtifactRow,
    GenerationRow,
    Json,
    LineageNode,
    NightRow,
    Sample,
    SampleRow,
    Score,
    ScoreRow,
    StageRow,
    StartedNight,
)
from nomoat.ledger.schema import (
    HEAD,
    artifact_inputs,
    artifacts,
    generations,
    nights,
    samples,
    scores,
    stages,
)

Row = TypeVar("Row")


class Ledger:
    """An open ledger. Made by `Ledger.open`; closed by `close` or by leaving its `with`."""

    def __init__(self, engine: Engine, place: str, busy_timeout_s: float) -> None:
        self.place = place
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._busy_timeout_s = busy_timeout_s

    @staticmethod
    def open(url_or_path: str | Path, *, busy_timeout_s: float = 30.0) -> Ledger:
        """Open a ledger, made where there is none, and bring it up to this program's schema.

        A path is SQLite (`<workspace>/.nomoat/ledger.db`); `postgresql://user@host/name` is PostgreSQL. A
        writer waits for another one up to `busy_timeout_s` seconds. Raises LedgerError for a file that is
        no ledger, is damaged, locked or read-only, or was written by a newer nomoat.
        """
        url, place = parse_place(url_or_path)
        with told(place, busy_timeout_s=busy_timeout_s):
            engine = make_engine(url, place, busy_timeout_s=busy_timeout_s)
            if revision_of(engine) != HEAD:
                use_wal(engine, busy_timeout_s=busy_timeout_s)
                migrating = make_engine(url, place, busy_timeout_s=busy_timeout_s, foreign_keys=False)
                upgrade(migrating, place)
                migrating.dispose()
        return Ledger(engine, place, busy_timeout_s)

    @property
    def judgements(self) -> Judgements:
        """Champions, the evidence for them, and votes."""
        return Judgements(self.place, self._write, self._select)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- writing

    def start_night(
        self,
        *,
        name: str,
        recipe_text: str,
        recipe_resolved: Json,
        code_version: str,
        seed: int,
        machine: Json,
        alone: bool,
    ) -> StartedNight:
        """Begin a night of this process, and mark as interrupted those whose process is gone.

        `alone`: the caller holds the workspace's lock and this ledger is that workspace's own, so that
        every other night still written as running is gone, whichever machine (or container) ran it.
        """
        check_json(recipe_resolved, "nights.recipe_resolved")
        check_json(machine, "nights.machine")
        mark = this_process()
        with self._write() as connection:
            refuse_damage(connection, self.place)
            running = _read(connection, NightRow, select(nights).where(nights.c.status == "running"))
            gone = [night.id for night in running if alone or night.is_lost()]
            for table, column in ((nights, nights.c.id), (stages, stages.c.night_id)):
                connection.execute(
                    # When it stopped is not known, so `ended_at` stays empty.
                    update(table)
                    .where(column.in_(gone), table.c.status == "running")
                    .values(status="interrupted")
                )
            night_id = _insert(
                connection,
                nights,
                name=name,
                started_at=now_iso(),
                status="running",
                recipe_text=recipe_text,
                recipe_resolved=recipe_resolved,
                code_version=code_version,
                seed=seed,
                machine=machine,
                pid=mark.pid,
                host=mark.host,
                process_started=mark.started,
            )
            (night,) = _read(connection, NightRow, select(nights).where(nights.c.id == night_id))
            query = select(nights).where(nights.c.id.in_(gone)).order_by(nights.c.id)
            return StartedNight(night, _read(connection, NightRow, query))

    def set_plan(self, night_id: int, plan: Json) -> None:
        """Keep the plan of a running night (again, when it is changed on the way)."""
        check_json(plan, "nights.plan")
        with self._write() as connection:
            self._update_running(connection, nights, night_id, {"plan": plan})

    def set_verdict(self, generation_id: int, verdict: Json) -> None:
        """What a later night found out about a generation that it made again; its own row keeps the earlier."""
        check_json(verdict, "generations.verdict")
        with self._write() as connection:
            connection.execute(
                update(generations).where(generations.c.id == generation_id).values(verdict=verdict)
            )

    def finish_night(
        self,
        night_id: int,
        *,
        status: Literal["done", "failed", "interrupted"],
        seconds: float,
        energy_joules: float | None,
        dollars: float | None,
        verdict: Json | None = None,
        error: str | None = None,
    ) -> None:
        """End a night. Stages of it that still run end with it, as failed or interrupted."""
        check_json([verdict, seconds, energy_joules, dollars], "nights.[verdict, seconds, joules, dollars]")
        ended_at = now_iso()
        with self._write() as connection:
            open_stages = stages.c.night_id == night_id, stages.c.status == "running"
            if status != "done":
                connection.execute(
                    update(stages).where(*open_stages).values(status=status, ended_at=ended_at)
                )
            assert connection.execute(select(stages.c.id).where(*open_stages)).first() is None, night_id
            values = {
                "status": status,
                "ended_at": ended_at,
                "seconds": seconds,
                "energy_joules": energy_joules,
                "dollars": dollars,
                "verdict": verdict,
                "error": error,
            }
            self._update_running(connection, nights, night_id, values)

    def start_stage(self, night_id: int, *, name: str, position: int, key: str) -> int:
        """Begin a stage and give its id. `key` is the key of the artifact it is to make."""
        with self._write() as connection:
            return _insert(
                connection,
                stages,
                night_id=night_id,
                name=name,
                position=position,
                key=key,
                status="running",
                started_at=now_iso(),
            )

    def finish_stage(
        self,
        stage_id: int,
        *,
        status: Literal["done", "reused", "failed", "interrupted"],
        seconds: float,
        artifact_id: str | None = None,
        energy_joules: float | None = None,
        dollars: float | None = None,
        detail: Json | None = None,
    ) -> None:
        """End a stage. Its artifact must have been added before."""
        check_json([detail, seconds, energy_joules, dollars], "stages.[detail, seconds, joules, dollars]")
        values = {
            "status": status,
            "ended_at": now_iso(),
            "seconds": seconds,
            "artifact_id": artifact_id,
            "energy_joules": energy_joules,
            "dollars": dollars,
            "detail": detail,
        }
        with self._write() as connection:
            self._update_running(connection, stages, stage_id, values)

    def add_artifact(self, artifact: Artifact) -> None:
        """Keep what an artifact is and was made from. One that is known already keeps its first date."""
        facts = {"path": artifact.relative_path, "bytes": artifact.bytes, "meta": artifact.meta}
        with self._write() as connection:
            known = update(artifacts).where(artifacts.c.id == artifact.id).values(**facts)
            if connection.execute(known).rowcount == 0:
                connection.execute(
                    insert(artifacts).values(
                        id=artifact.id, kind=artifact.kind, key=artifact.key, created_at=now_iso(), **facts
                    )
                )
            connection.execute(delete(artifact_inputs).where(artifact_inputs.c.artifact_id == artifact.id))
            links = [
                {"artifact_id": artifact.id, "role": role, "input_id": input_id}
                for role, input_id in artifact.inputs.items()
            ]
            if links:
                connection.execute(insert(artifact_inputs), links)

    def add_generation(
        self,
        night_id: int,
        *,
        base: str,
        adapter_artifact: str | None = None,
        merged_artifact: str | None = None,
        gguf_artifact: str | None = None,
        served_file: str | None = None,
        verdict: Json | None = None,
    ) -> GenerationRow:
        """Keep what a night yielded, under the next generation's number."""
        check_json(verdict, "generations.verdict")
        with self._write() as connection:
            generation_id = _insert(
                connection,
                generations,
                night_id=night_id,
                created_at=now_iso(),
                base=base,
                adapter_artifact=adapter_artifact,
                merged_artifact=merged_artifact,
                gguf_artifact=gguf_artifact,
                served_file=served_file,
                verdict=verdict,
            )
            query = select(generations).where(generations.c.id == generation_id)
            return _read(connection, GenerationRow, query)[0]

    def add_scores(self, night_id: int, found: Iterable[Score]) -> None:
        """Keep measured numbers, all or none."""
        self._add_all(scores, night_id, found)

    def add_samples(self, night_id: int, found: Iterable[Sample]) -> None:
        """Keep answers to prompts, all or none."""
        self._add_all(samples, night_id, found)

    # ---- reading

    def nights(self, limit: int | None = None) -> tuple[NightRow, ...]:
        """The newest `limit` nights, or all of them; newest first."""
        return self._select(NightRow, select(nights).order_by(nights.c.id.desc()).limit(limit))

    def night(self, night_id: int) -> NightRow:
        """One night; LedgerError where there is none of that number."""
        found = self._select(NightRow, select(nights).where(nights.c.id == night_id))
        if not found:
            last = self.nights(limit=1)
            known = f"the newest is night {last[0].id}" if last else "it holds no night yet"
            raise LedgerError(
                f"ledger {self.place}: has no night {night_id}; {known}", hint="See them all: nomoat log"
            )
        return found[0]

    def stages(self, night_id: int) -> tuple[StageRow, ...]:
        """A night's stages, in the order in which they ran."""
        query = select(stages).where(stages.c.night_id == night_id).order_by(stages.c.position, stages.c.id)
        return self._select(StageRow, query)

    def scores(self, night_id: int) -> tuple[ScoreRow, ...]:
        """A night's scores, in the order in which they were added."""
        query = select(scores).where(scores.c.night_id == night_id).order_by(scores.c.id)
        return self._select(ScoreRow, query)

    def samples(self, night_id: int) -> tuple[SampleRow, ...]:
        """A night's answers, in the order in which they were added."""
        query = select(samples).where(samples.c.night_id == night_id).order_by(samples.c.id)
        return self._select(SampleRow, query)

    def generations(self) -> tuple[GenerationRow, ...]:
        """All generations, newest first."""
        return self._select(GenerationRow, select(generations).order_by(generations.c.id.desc()))

    def generation(self, which: int | str) -> GenerationRow:
        """The generation 'latest', 'gen-0007' or 7; LedgerError where there is none such."""
        every = self.generations()
        if not every:
            raise LedgerError(f"ledger {self.place}: holds no generation yet", hint="Make one: nomoat run")
        if which == "latest":
            return every[0]
        for generation in every:
            if which in (generation.id, generation.name):
                return generation
        shown = f"gen-{which:04d}" if isinstance(which, int) else which
        known = every[0].name if len(every) == 1 else f"{every[-1].name} to {every[0].name}"
        raise LedgerError(f'ledger {self.place}: got "{shown}"; expected "latest" or a generation of {known}')

    def artifact(self, artifact_id: str) -> ArtifactRow:
        """What is known of an artifact, whether or not its folder still exists."""
        with self._read_only() as connection:
            row = connection.execute(select(artifacts).where(artifacts.c.id == artifact_id)).first()
        if row is None:
            raise LedgerError(f'ledger {self.place}: has no artifact "{artifact_id}"')
        return ArtifactRow(**row._mapping)

    def lineage(self, artifact_id: str, *, depth: int = 100) -> LineageNode:
        """The tree of what an artifact was made from, `depth` levels down or to outside fingerprints."""
        root = self.artifact(artifact_id)
        with self._read_only() as connection:
            return read_lineage(connection, root.id, root.kind, depth=depth)

    # ---- transactions

    def forget_overwritten(self) -> None:
        """Leave nothing in the database's files of what was overwritten; texts that were erased are gone then."""
        with told(self.place, busy_timeout_s=self._busy_timeout_s):
            empty_wal(self._engine)

    def transaction(self, *, writes: bool) -> AbstractContextManager[Connection]:
        """One for tables that have a module of their own. What is refused is told as LedgerError."""
        return self._write() if writes else self._read_only()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with told(self.place, busy_timeout_s=self._busy_timeout_s), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _read_only(self) -> Iterator[Connection]:
        with told(self.place, busy_timeout_s=self._busy_timeout_s), self._engine.connect() as connection:
            yield connection

    def _select(self, row: type[Row], query: Select[Any]) -> tuple[Row, ...]:
        with self._read_only() as connection:
            return _read(connection, row, query)

    def _add_all(self, table: Table, night_id: int, found: Iterable[Score] | Iterable[Sample]) -> None:
        values = [{"night_id": night_id, **asdict(item)} for item in found]
        check_json(values, table.name)
        if values:
            with self._write() as connection:
                connection.execute(insert(table), values)

    def _update_running(
        self, connection: Connection, table: Table, row_id: int, values: dict[str, Any]
    ) -> None:
        running = table.c.id == row_id, table.c.status == "running"
        if connection.execute(update(table).where(*running).values(**values)).rowcount != 1:
            # Not ours to end: another process took this one for dead, or it has ended.
            raise LedgerError(f"ledger {self.place}: {table.name} has no running row {row_id}")


def _insert(connection: Connection, table: Table, **values: Any) -> int:
    key = connection.execute(insert(table).values(**values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _read(connection: Connection, row: type[Row], query: Select[Any]) -> tuple[Row, ...]:
    return tuple(row(**found._mapping) for found in connection.execute(query))
