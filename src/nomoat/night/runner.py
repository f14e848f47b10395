"""Runs the stages of a night: which need to run, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from nomoat.ledger.artifacts import Artifact, ArtifactStore
from nomoat.ledger.store import Ledger
from nomoat.model.heap import give_back
from nomoat.night.events import Watcher
from nomoat.night.jobs import Job, make
from nomoat.night.result import StageSummary
from nomoat.plan.cost import Prices
from nomoat.plan.probe import EnergyMeter, MachineProfile, meter_of
from nomoat.train.hooks import Interrupted


class NightInterrupted(Exception):  # noqa: N818 - the owner asked for it
    """The night stopped cleanly on request; running it again goes on where it stopped."""


@dataclass
class Stages:
    """Runs jobs in order, skips those whose artifact is there, and keeps the books."""

    store: ArtifactStore
    ledger: Ledger
    night_id: int
    watcher: Watcher
    stop_asked: Callable[[], bool]
    profile: MachineProfile
    prices: Prices
    meter: EnergyMeter
    summaries: list[StageSummary] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Since the night began."""
        return time.monotonic() - self._started

    def do(self, job: Job) -> Artifact:
        """The job's artifact: found, or made now.

        Raises NightInterrupted when the owner asked to stop, and what the stage raises, with the ledger told.
        """
        if self.stop_asked():
            raise NightInterrupted(f"stopped before {job.kind}")
        found = self.store.get(job.kind, job.key)
        stage_id = self.ledger.start_stage(
            self.night_id, name=job.kind, position=len(self.summaries), key=job.key
        )
        if found is not None:
            self.ledger.add_artifact(found)  # a night killed right after its commit did not get to say so
            self._close(stage_id, job, found, "reused", 0.0, 0.0)
            return found
        self.watcher.stage_started(job.kind, job.why)
        started, meter = time.monotonic(), meter_of(self.profile)
        try:
            artifact = self._run(job)
        except BaseException as error:
            asked = isinstance(error, Interrupted | KeyboardInterrupt)
            how: Literal["interrupted", "failed"] = "interrupted" if asked else "failed"
            seconds = time.monotonic() - started
            with suppress(Exception):  # the first error is the one to tell
                self.ledger.finish_stage(
                    stage_id,
                    status=how,
                    artifact_id=None,
                    seconds=seconds,
                    energy_joules=meter.joules(),
                    dollars=self.prices.dollars(seconds, meter.joules()),
                    detail={"error": str(error)},
                )
            self.watcher.stage_ended(
                job.kind, how, seconds, str(error).splitlines()[0] if str(error) else how
            )
            if isinstance(error, Interrupted):
                raise NightInterrupted(str(error)) from error
            raise
        self._close(stage_id, job, artifact, "done", time.monotonic() - started, meter.joules())
        return artifact

    def _run(self, job: Job) -> Artifact:
        artifact = make(self.store, job, partial(self.watcher.stage_progress, job.kind))
        self.ledger.add_artifact(artifact)
        give_back()
        return artifact

    def _close(
        self,
        stage_id: int,
        job: Job,
        artifact: Artifact,
        how: Literal["done", "reused"],
        seconds: float,
        joules: float,
    ) -> None:
        dollars, said = self.prices.dollars(seconds, joules), artifact.meta["said"]
        self.ledger.finish_stage(
            stage_id,
            status=how,
            artifact_id=artifact.id,
            seconds=seconds,
            energy_joules=joules,
            dollars=dollars,
            detail={"said": said},
        )
        self.summaries.append(StageSummary(job.kind, how, seconds, joules, dollars, artifact.id, said))
        self.watcher.stage_ended(job.kind, how, seconds, said)
