"""A job: one stage of a night, with everything its bytes depend on, and how it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nomoat.ledger.artifacts import Artifact, ArtifactStore
from nomoat.ledger.canonical import canonical_key
from nomoat.night.code import code_version

Report = Callable[[float, float | None, str], None]
"""share done, seconds left or None, a few words"""


@dataclass(frozen=True)
class Outcome:
    """What a stage says of itself: `meta` is kept with the artifact, `said` is one line for the owner."""

    meta: dict[str, Any]
    said: str


@dataclass(frozen=True)
class Folders:
    """`out` becomes the artifact; `scratch` holds what is needed only to resume."""

    out: Path
    scratch: Path


@dataclass(frozen=True)
class Job:
    """`inputs` maps a role to an artifact's id or to an outside fingerprint; `params` holds all else that
    the result depends on. Together with the code they name the artifact, so that a job whose artifact is
    there need not run."""

    kind: str
    why: str
    inputs: dict[str, str]
    params: dict[str, Any]
    run: Callable[[Folders, Report], Outcome] = field(repr=False)

    @property
    def key(self) -> str:
        """sha256 over kind, inputs, params and code."""
        return canonical_key(
            {"kind": self.kind, "inputs": self.inputs, "params": self.params, "code": code_version()}
        )


def make(store: ArtifactStore, job: Job, report: Report) -> Artifact:
    """Run the job in its work folder, going on from what a killed run left there, and commit the result."""
    folders = Folders(store.work_dir(job.kind, job.key), store.scratch_dir(job.kind, job.key))
    outcome = job.run(folders, report)
    meta = {"said": outcome.said, "params": job.params, **outcome.meta}
    return store.commit(job.kind, job.key, inputs=job.inputs, meta=meta)
