"""The stages of a night that train, and what each goes on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nomoat.ledger.artifacts import Artifact, ArtifactStore
from nomoat.night.base import Base
from nomoat.night.deadline import Countdown
from nomoat.night.forecast import Trained, expected_judgements
from nomoat.night.jobs import Job
from nomoat.night.orders import Orders
from nomoat.night.recipes import (
    resolve_learning_rate,
    resolve_preference_rate,
    resolve_reinforcement_rate,
    resolve_reward_rate,
)
from nomoat.plan.memory import Checkpointing
from nomoat.recipe import Recipe


@dataclass(frozen=True)
class Learner:
    """The stages that train, in order: each goes on from what the one before it has made. Where `judgements` are not
    there yet, they will be made of answers to so many `asked` prompts. The reward model comes first and goes on from
    the base alone."""

    recipe: Recipe
    orders: Orders
    base: Base
    data: Artifact | None
    judgements: Artifact | None
    asked: int
    prompts: Artifact | None
    compared: Artifact | None

    def reports(self) -> dict[str, dict[str, Any]]:
        """The report on the rows that each of them learns from, or what it may say."""
        found = {}
        if self.compared is not None:
            found["reward"] = self.compared.meta
        if self.data is not None:
            found["sft"] = self.data.meta
        if self.judgements is not None:
            found["prefer"] = self.judgements.meta
        elif self.asked:
            found["prefer"] = expected_judgements(self.recipe, self.asked)
        if self.prompts is not None:
            found["reinforce"] = self.prompts.meta
        return found

    def knows(self, kind: str) -> bool:
        """Whether the rows that this stage learns from are there."""
        return kind != "prefer" or self.judgements is not None

    def reasons(self) -> list[str]:
        """Why their learning rates are what they are."""
        return [self._rate(kind)[1] for kind in self.reports()]

    def job(
        self,
        kind: str,
        made: Mapping[str, Artifact],
        seconds_left: Callable[[], float | None],
        checkpointing: Checkpointing,
    ) -> Job:
        """The job of the stage `kind`, after those that are made."""
        rate, _ = self._rate(kind)
        if kind == "reward":
            assert self.compared is not None
            return self.orders.reward(self.base, self.compared, rate, seconds_left, checkpointing)
        if kind == "sft":
            assert self.data is not None
            return self.orders.sft(self.base, self.data, rate, seconds_left, checkpointing)
        if kind == "reinforce":
            evaluated, before = self.data or self.judgements, made.get("prefer", made.get("sft"))
            assert self.prompts is not None
            assert evaluated is not None
            assert before is not None
            return self.orders.reinforce(
                self.base,
                self.prompts,
                evaluated,
                before,
                made["reward"] if self._asks_reward_model() else None,
                rate,
                seconds_left,
                checkpointing,
            )
        assert self.judgements is not None
        return self.orders.prefer(
            self.base, self.judgements, made.get("sft"), rate, seconds_left, checkpointing
        )

    def trained(self, store: ArtifactStore) -> dict[str, Trained]:
        """How much of each training an earlier run has done. Of a stage whose forerunner is not done nothing is."""
        found: dict[str, Trained] = {}
        made: dict[str, Artifact] = {}
        for kind in self.reports():
            found[kind] = "no"
            if len(made) == len(found) - 1 and self.knows(kind):
                job = self.job(kind, made, Countdown(None).left, "auto")
                artifact = store.get(job.kind, job.key)
                if artifact is not None:
                    found[kind], made[kind] = "done", artifact
                elif store.has_begun(job.kind, job.key):
                    found[kind] = "begun"
        return found

    def _asks_reward_model(self) -> bool:
        """Whether `reinforce` learns from this night's reward model."""
        specs = self.orders.sources.rewards
        return any(spec.kind == "reward_model" and spec.file is None for spec in specs)

    def _rate(self, kind: str) -> tuple[float, str]:
        if kind == "reward":
            return resolve_reward_rate(self.recipe, self.base.width)
        if kind == "sft":
            assert self.recipe.sft is not None
            return resolve_learning_rate(self.recipe.sft, self.base.width)
        if kind == "reinforce":
            return resolve_reinforcement_rate(self.recipe, self.base.width)
        return resolve_preference_rate(self.recipe, self.base.width)
