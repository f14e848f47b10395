"""The books of a night: its end in the ledger, its generation, its report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nomoat.evaluate.comparison import Answer, Comparison, Estimate, Metric
from nomoat.evaluate.gate import GateVerdict
from nomoat.evaluate.gatebook import champion_name, verdict_on
from nomoat.ledger.artifacts import HOUSE, Artifact
from nomoat.ledger.clock import now_iso
from nomoat.ledger.rows import GenerationRow, NightRow, Sample, Score, Subject
from nomoat.ledger.store import Ledger
from nomoat.night.code import code_version
from nomoat.night.gate import read_evidence
from nomoat.night.report import write_report
from nomoat.night.result import NightSummary, Results, TrainingSummary
from nomoat.night.runner import NightInterrupted, Stages
from nomoat.night.stages import MODEL
from nomoat.night.succession import crown, has_stood
from nomoat.recipe_file import LoadedRecipe


@dataclass(frozen=True)
class Books:
    """What is written down when a night ends, however it ends."""

    ledger: Ledger
    night: NightRow
    loaded: LoadedRecipe
    workspace: Path
    stages: Stages

    @contextmanager
    def closed_on_failure(self) -> Iterator[None]:
        """A night that does not end well is written down as failed or interrupted, with its cost so far."""
        try:
            yield
        except BaseException as error:
            asked = isinstance(error, NightInterrupted | KeyboardInterrupt)
            with suppress(Exception):  # the first error is the one to tell
                self.ledger.finish_night(
                    self.night.id,
                    status="interrupted" if asked else "failed",
                    error=str(error) or type(error).__name__,
                    **self._cost(),
                )
            raise

    def close(
        self, base: str, base_source: str, results: Results, *, warnings: tuple[str, ...]
    ) -> NightSummary:
        """Write down a night that ended well: scores, answers, generation, report."""
        recipe = self.loaded.recipe
        comparison = read_comparison(results)
        served_file = f"{results.served.relative_path}/{recipe.name}-{recipe.quantize.serve}.gguf"
        model = results.merged or results.pretrain
        assert model is not None
        verdict = {"verdict": comparison.verdict, "said": comparison.said}
        generation = self._generation(base_source, results, model, served_file, verdict)
        self.ledger.add_scores(self.night.id, _scores(comparison, recipe.evaluate.confidence))
        self.ledger.add_samples(self.night.id, [_sample(answer) for answer in comparison.answers])

        gate, champion = self._pass_gate(generation, results)
        if gate is not None and gate.verdict == "promote" and champion != generation.name:
            stood = f"{generation.name} was the champion before, and comes back by your word only"
            warnings = (*warnings, f"{stood}: nomoat promote {generation.name}")

        night, cost = self.night, self._cost()
        report_path = self.workspace / HOUSE / "reports" / f"night-{night.id:04d}.html"
        summary = NightSummary(
            night_id=night.id,
            generation=generation.name,
            name=recipe.name,
            started_at=night.started_at,
            ended_at=now_iso(),
            base=base,
            seed=recipe.seed,
            code_version=code_version(),
            machine=night.machine,
            plan=list(results.plan),
            recipe_yaml=self.loaded.resolved_yaml(),
            data_reports=[
                dict(made.meta) for made in (results.data, results.judgements, results.compared) if made
            ],
            trainings=_trainings(results),
            comparison=comparison,
            gate=gate,
            champion=champion,
            fidelity=_read_json(results.evaluate, "fidelity.json").get("files", []),
            stages=self.stages.summaries,
            seconds=cost["seconds"],
            energy_joules=cost["energy_joules"],
            energy_said=self.stages.profile.watts_said,
            dollars=cost["dollars"],
            price_said=self._price_said(),
            lineage=asdict(self.ledger.lineage(results.served.id)),
            licences=list(results.licences),
            model_path=f"{model.relative_path}/{MODEL}",
            served_file=served_file,
            report_path=str(report_path.relative_to(self.workspace)),
            next_command="nomoat chat",
            warnings=list(warnings),
            overlaps=dict(results.overlaps.meta) if results.overlaps else None,
        )
        report_path.parent.mkdir(parents=True, exist_ok=True)
        write_report(summary, report_path)
        # last of all: a night that the ledger calls done has its report
        named = verdict | {"generation": generation.name}
        if gate is not None:
            named["gate"] = gate.verdict
        self.ledger.finish_night(self.night.id, status="done", verdict=named, **cost)
        return summary

    def _generation(
        self, base: str, results: Results, model: Artifact, served_file: str, verdict: dict[str, str]
    ) -> GenerationRow:
        """A new generation, or the one that had exactly these files, with what was last found out about it."""
        known = known_generation(self.ledger, served_file, model.id)
        if known is not None:
            self.ledger.set_verdict(known.id, verdict)
            return known
        adapter = list(results.trained.values())[-1] if results.trained else None
        return self.ledger.add_generation(
            self.night.id,
            base=base,
            adapter_artifact=adapter.id if adapter and adapter is not results.merged else None,
            merged_artifact=model.id,
            gguf_artifact=results.served.id,
            served_file=served_file,
            verdict=verdict,
        )

    def _pass_gate(self, generation: GenerationRow, results: Results) -> tuple[GateVerdict | None, str]:
        """Keep the gate's evidence, make the generation the champion where it says so, and say who is served."""
        kept, verdict = self.ledger.judgements, None
        if results.gate is not None:
            kept.add_evidence(self.night.id, generation.id, results.rival_id, read_evidence(results.gate))
            verdict = verdict_on(self.ledger, generation, self.stages.store)
            if verdict.verdict == "promote" and not has_stood(self.ledger, generation):
                crown(self.ledger, generation, verdict, self.night.id)
        return verdict, champion_name(self.ledger)

    def _cost(self) -> dict[str, Any]:
        seconds, joules = self.stages.seconds(), self.stages.meter.joules()
        dollars = self.stages.prices.dollars(seconds, joules)
        return {"seconds": seconds, "energy_joules": joules, "dollars": dollars}

    def _price_said(self) -> str:
        prices, said = self.stages.prices, self.stages.profile.watts_said
        power = f"{prices.dollars_per_kwh:.2f} $/kWh at {said}"
        if prices.dollars_per_hour == 0:
            return f"{power}; the machine itself at 0 $/h (budget.price_dollars_per_hour)"
        return f"{prices.dollars_per_hour:.2f} $/h and {power}"


def known_generation(ledger: Ledger, served_file: str, model_id: str) -> GenerationRow | None:
    """The generation that already had exactly these files."""
    return next(
        (g for g in ledger.generations() if g.served_file == served_file and g.merged_artifact == model_id),
        None,
    )


def read_comparison(results: Results) -> Comparison:
    """The comparison that `evaluate` wrote."""
    raw = _read_json(results.evaluate, "comparison.json")
    metrics = [
        Metric(**{**m, **{side: Estimate(**m[side]) for side in ("base", "tuned", "difference")}})
        for m in raw["metrics"]
    ]
    answers = [Answer(**answer) for answer in raw["answers"]]
    return Comparison(metrics, answers, raw["verdict"], raw["decided_by"], raw["said"])


def _trainings(results: Results) -> list[TrainingSummary]:
    """Each stage that trained: those on the base, or else the one that made it."""
    made = results.trained or ({"pretrain": results.pretrain} if results.pretrain else {})
    return [
        TrainingSummary(
            kind,
            _read_json(artifact, "training.json")["curve"],
            {key: value for key, value in artifact.meta.items() if key not in ("params", "events")},
        )
        for kind, artifact in made.items()
    ]


def _read_json(artifact: Artifact | None, name: str) -> dict[str, Any]:
    if artifact is None:
        return {}
    content: dict[str, Any] = json.loads((artifact.path / name).read_text(encoding="utf-8"))
    return content


def _scores(comparison: Comparison, confidence: float) -> list[Score]:
    def score(subject: Subject, metric: Metric, found: Estimate) -> Score:
        return Score(
            subject=subject,
            suite=metric.suite,
            metric=metric.name,
            value=found.value,
            low=found.low,
            high=found.high,
            confidence=confidence,
            n=found.n,
        )

    return [
        one
        for metric in comparison.metrics
        for one in (
            score("base", metric, metric.base),
            score("tuned", metric, metric.tuned),
            score("difference", metric, metric.difference),
        )
    ]


def _sample(answer: Answer) -> Sample:
    return Sample(
        suite=answer.suite,
        prompt_id=answer.prompt_id,
        prompt=answer.messages,
        base_answer=answer.base,
        tuned_answer=answer.tuned,
        base_passed=answer.base_passed,
        tuned_passed=answer.tuned_passed,
        checks=answer.checks,
    )
