"""The stages of a night, one seed after the other from the same `sft`, stopped now and then to be examined."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from learned.fresh import Examiner
from nomoat.ledger.artifacts import Artifact, ArtifactStore
from nomoat.ledger.files import atomic_write
from nomoat.model.load import Machine, resolve_base
from nomoat.night.base import Base
from nomoat.night.jobs import Job, make
from nomoat.night.orders import Orders
from nomoat.night.recipes import (
    resolve_learning_rate,
    resolve_preference_rate,
    resolve_reinforcement_rate,
    resolve_reward_rate,
)
from nomoat.night.sampling import PAIRS
from nomoat.night.sources import STARTER, find_sources
from nomoat.night.stages import ADAPTER, MODEL
from nomoat.recipe_file import load_recipe
from nomoat.train.hooks import Interrupted

SHARES = (0.25, 0.5, 0.75)
"""Where a training is stopped to be examined, beside its beginning and its end."""


@dataclass
class Run:
    """One method with one seed. `points` are {step, minutes, passed} on some prompts, minutes of one core from the
    beginning of the method, sampling included; `passed` says which of all prompts the weights pass that are kept."""

    method: str
    seed: int
    points: list[dict[str, float | list[bool]]] = field(default_factory=list)
    seconds: float = 0.0
    passed: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Begun:
    """What all methods begin with."""

    base: Base
    data: Artifact
    sft: Artifact


def quiet(share: float, seconds: float | None, said: str) -> None:
    """Nobody watches."""


class House:
    """Makes what a night would make, in a workspace where all that is done is found again."""

    def __init__(
        self,
        workspace: Path,
        machine: Machine,
        threads: int,
        words: list[str],
        checks: list[dict[str, Any]] | None = None,
    ) -> None:
        self.store, self.machine, self.threads, self.words = (
            ArtifactStore(workspace),
            machine,
            threads,
            words,
        )
        self.workspace = workspace
        self.prompts = STARTER / "prompts.jsonl"
        if checks is not None:
            rows = map(json.loads, self.prompts.read_text(encoding="utf-8").splitlines())
            self.prompts = workspace / "prompts.jsonl"
            lines = [json.dumps(row | {"checks": checks}) + "\n" for row in rows]
            atomic_write(self.prompts, "".join(lines).encode())

    def orders(self, words: list[str], stop: Callable[[], bool] = lambda: False) -> Orders:
        """Of the recipe with these overrides; those of a section that it does not have stay away."""
        sections = {word.partition(".")[0] for word in words}
        common = [w for w in self.words if w.partition(".")[0] in {"data", "sft"} | sections]
        asked = [f"{name}.prompts=[{self.prompts}]" for name in sections & {"prefer", "reinforce"}]
        loaded = load_recipe(None, [*sorted(asked), *words, *common])
        sources = find_sources(loaded.recipe, self.workspace)
        return Orders(loaded.recipe, sources, self.machine, self.threads, stop)

    def begin(self) -> Begun:
        """Fine-tune the embedded base on the starter data."""
        orders = self.orders([])
        assert orders.recipe.sft is not None
        base = Base.of(resolve_base(orders.recipe.base, self.workspace), orders.recipe.base)
        data = make_once(self.store, orders.data(base))
        rate, _ = resolve_learning_rate(orders.recipe.sft, base.width)
        sft = make_once(self.store, orders.sft(base, data, rate, lambda: None, "auto"))
        return Begun(base, data, sft)

    def run(
        self, begun: Begun, method: str, seed: int, words: list[str], examiner: Examiner, most: int
    ) -> Run:
        """Train with one method and seed; what an earlier call did is not done again."""
        asked: list[float] = []
        progress = [0.0]
        clock = time.process_time()
        words = [*words, f"seed={seed}"]
        if any("reward_model" in word for word in words):  # it learns from the same pairs as dpo
            sampled = self._sampled(self.orders(["prefer.loss_type=sigmoid", f"seed={seed}"]), begun)
            words.append(f"reward.train={sampled.path / PAIRS}")
        job = self._job(self.orders(words, lambda: bool(asked) and progress[0] >= asked[0]), begun)
        run = Run(method, seed)
        kept = self.workspace / f"{method}-{seed}-{job.key[:12]}.json"
        if kept.exists():
            run = Run(**json.loads(kept.read_text()))
        run.seconds += time.process_time() - clock

        def report(share: float, left: float | None, said: str) -> None:
            progress[0] = share

        while len(run.points) < len(SHARES):
            asked[:] = [SHARES[len(run.points)]]
            clock = time.process_time()
            try:
                make_once(self.store, job, report)
                break  # too few steps to be stopped again
            except Interrupted:
                pass
            finally:
                run.seconds += time.process_time() - clock
            step, passed = examiner.of_checkpoint(self.store.scratch_dir(job.kind, job.key), most)
            run.points.append({"step": step, "minutes": run.seconds / 60, "passed": passed})
            atomic_write(kept, json.dumps(asdict(run)).encode())
        asked.clear()
        if not run.passed:
            clock = time.process_time()
            made = make_once(self.store, job, report)
            run.seconds += time.process_time() - clock
            run.passed = examiner.of_adapter(made.path / ADAPTER)
            last = {"step": made.meta["steps"], "minutes": run.seconds / 60, "passed": run.passed[:most]}
            run.points.append(last)
            atomic_write(kept, json.dumps(asdict(run)).encode())
        return run

    def _job(self, orders: Orders, begun: Begun) -> Job:
        """The stage that trains, with what comes before it done."""
        base, store = begun.base, self.store
        if orders.recipe.reinforce is None:
            rate, _ = resolve_preference_rate(orders.recipe, base.width)
            judged = make_once(store, orders.judgements(base, self._sampled(orders, begun)))
            return orders.prefer(base, judged, begun.sft, rate, lambda: None, "auto")
        scorer = None
        if orders.recipe.reward is not None:
            rate, _ = resolve_reward_rate(orders.recipe, base.width)
            compared = make_once(store, orders.comparisons(base))
            scorer = make_once(store, orders.reward(base, compared, rate, lambda: None, "auto"))
        rate, _ = resolve_reinforcement_rate(orders.recipe, base.width)
        prompts = make_once(store, orders.prompts(base))
        return orders.reinforce(base, prompts, begun.data, begun.sft, scorer, rate, lambda: None, "auto")

    def _sampled(self, orders: Orders, begun: Begun) -> Artifact:
        """Answers of what `sft` has made, judged by the checks of their prompts."""
        store, serve = self.store, orders.recipe.quantize.serve
        merged = make_once(store, orders.merge(begun.base, begun.data, begun.sft))
        files = make_once(store, orders.quantize(merged.path / MODEL, merged.id, "sft", (serve,)))
        gguf = files.path / f"sft-{serve}.gguf"
        return make_once(store, orders.sample(merged.path / MODEL, files, gguf))


def make_once(
    store: ArtifactStore, job: Job, report: Callable[[float, float | None, str], None] = quiet
) -> Artifact:
    """The job's artifact: made now, unless it is there."""
    return store.get(job.kind, job.key) or make(store, job, report)
