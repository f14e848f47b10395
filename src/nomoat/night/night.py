"""`nomoat run`: a whole night as one function that reads from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from nomoat.data.split import ASKED, asked_in_training, asked_keys
from nomoat.engine.pace import Pace, measure_pace
from nomoat.errors import ArtifactError
from nomoat.evaluate.gatebook import held_out_row_keys, rival_of
from nomoat.ledger.artifacts import Artifact, ArtifactStore
from nomoat.ledger.store import Ledger
from nomoat.model.heap import keep_freed_memory
from nomoat.model.load import choose_machine, make_deterministic, resolve_base, set_threads
from nomoat.night.base import Base, made_here
from nomoat.night.books import Books, known_generation
from nomoat.night.code import code_version
from nomoat.night.contamination import contaminated, row_of
from nomoat.night.deadline import Countdown
from nomoat.night.disk import lack_of_disk
from nomoat.night.evaluation import check_functions, check_prompts, owners_prompts
from nomoat.night.events import Watcher
from nomoat.night.feedback import (
    Feedback,
    find_own_answers,
    find_votes,
    suite_keys,
    with_votes_enough,
)
from nomoat.night.forecast import (
    budget_left,
    plan_finetuning,
    plan_pretraining_memory,
    prices_of,
)
from nomoat.night.gate import find_rival
from nomoat.night.jobs import Job, make
from nomoat.night.learner import Learner
from nomoat.night.orders import Orders, engine_threads
from nomoat.night.recipes import (
    adapter_keys,
    first_training,
    require_extras,
)
from nomoat.night.result import NightSummary, Results
from nomoat.night.runner import Stages
from nomoat.night.sampling import prompts_with_checks
from nomoat.night.sources import Sources, find_sources, licences_of
from nomoat.night.stages import MODEL
from nomoat.night.succession import crown_by_votes
from nomoat.plan.planner import Plan, seconds_within
from nomoat.plan.probe import MachineProfile, meter_of, probe
from nomoat.recipe import Recipe
from nomoat.recipe_file import LoadedRecipe

PRETRAIN_SHARE_BEFORE_SFT, PRETRAIN_SHARE_ALONE = 0.5, 0.9
STALE_WORK_SECONDS = 14 * 24 * 3600.0


def run_night(
    loaded: LoadedRecipe, workspace: Path, *, watcher: Watcher, stop_asked: Callable[[], bool]
) -> NightSummary:
    """Run the recipe in the workspace and leave a model, a report and the ledger's account of both.

    Whatever of it was done before, with the same inputs, recipe and code, is not done again. Raises
    NightInterrupted after a clean stop, and errors.NomoatError for what the owner can mend.
    """
    started = datetime.now()
    recipe = loaded.recipe
    sources = find_sources(recipe, loaded.folder)
    threads = set_threads(recipe.threads)
    machine = choose_machine(first_training(recipe).dtype)
    if machine.device == "cpu":
        keep_freed_memory()
    make_deterministic(machine)
    require_extras(recipe, machine.device)
    base_folder = None if recipe.pretrain else resolve_base(recipe.base, loaded.folder)
    store = ArtifactStore(workspace)
    with store.lock(), Ledger.open(store.house / "ledger.db") as ledger:
        store.sweep(max_age_s=STALE_WORK_SECONDS)
        votes = find_votes(recipe, sources, ledger)
        recipe = with_votes_enough(recipe, votes, watcher.note)
        feedback = (votes if recipe.prefer else None), find_own_answers(recipe, sources, ledger)
        profile = probe(machine, workspace, watts=recipe.budget.watts)
        opened = ledger.start_night(
            name=recipe.name,
            recipe_text=loaded.text,
            recipe_resolved=recipe.model_dump(mode="json"),
            code_version=code_version(),
            seed=recipe.seed,
            machine=asdict(profile),
            alone=True,
        )
        for lost in opened.interrupted:
            watcher.note(f"night {lost.id} had been cut off; what it had finished is used again")
        stages = Stages(
            store,
            ledger,
            opened.night.id,
            watcher,
            stop_asked,
            profile,
            prices_of(recipe.budget),
            meter_of(profile),
        )
        orders = Orders(recipe, sources, machine, threads, stop_asked)
        night = _Night(recipe, sources, stages, orders, profile, started, *feedback)
        books = Books(ledger, opened.night, loaded, workspace, stages)
        with books.closed_on_failure():
            night.warnings += crown_by_votes(ledger, store, opened.night.id)
            if base_folder is None:
                base = night.pretrain()
            else:
                base = Base.of(base_folder, recipe.base, made_here(base_folder, store, ledger))
            results = night.finetune(base) if recipe.sft or recipe.prefer else night.pack_up(base)
            warnings = (*store.warnings, *night.warnings)
            for warning in warnings:
                watcher.note(warning)
            return books.close(base.name, base.source, results, warnings=warnings)


@dataclass
class _Night:
    recipe: Recipe
    sources: Sources
    stages: Stages
    orders: Orders
    profile: MachineProfile
    started: datetime
    votes: Feedback | None
    own_answers: Feedback | None
    pretrained: Artifact | None = None
    warnings: list[str] = field(default_factory=list)

    def pretrain(self) -> Base:
        """The stage `pretrain`: a base of one's own."""
        section = self.recipe.pretrain
        assert section is not None
        memory = plan_pretraining_memory(section, self.profile)
        for sentence in memory.sentences:
            self.stages.watcher.note(sentence)
        self.pretrained = self.stages.do(
            self.orders.pretrain(section, self._pretraining_time().left, memory.gradient_checkpointing)
        )
        name = f"{self.recipe.name} (pre-trained)"
        return Base.of(self.pretrained.path / MODEL, name, self.pretrained.id)

    def pack_up(self, base: Base) -> Results:
        """A night without fine-tuning ends with the base's own files."""
        assert self.pretrained is not None
        types = tuple(self.recipe.quantize.types)
        served = self.stages.do(self.orders.quantize(base.folder, base.source, self.recipe.name, types))
        evaluate = self.stages.do(self.orders.evaluate_new_base(self.pretrained, served))
        return Results(served=served, evaluate=evaluate, pretrain=self.pretrained)

    def finetune(self, base: Base) -> Results:
        """data, judgements, prompts, reward, sft, prefer, reinforce, merge, quantize, evaluate, gate: those that the
        recipe has. The base is quantised before it is trained, so that what cannot be served, or not be asked, is
        refused while it has cost nothing. Where `prefer` learns from the model's own answers, they are sampled and
        judged when it is its turn."""
        prompts = owners_prompts(self.sources.prompts, self.recipe.evaluate.max_prompts)
        check_functions([*prompts, *owners_prompts(self.sources.answered)])
        overlaps, leave_out, prompts_out = self._overlaps()
        votes, own_answers = map(self._written, (self.votes, self.own_answers))
        data = judgements = compared = None
        suites = suite_keys(self.sources, self.stages.ledger)
        held_out = set(suites)
        if votes is not None or own_answers is not None:
            # the arena may have drawn their prompts from rows that were held out
            held_out.update(held_out_row_keys(self.stages.ledger))
        if self.sources.train:
            data = self._without(held_out, partial(self.orders.data, base, own_answers, leave_out))
        if self.recipe.prefer and not self.sources.asked:
            judgements = self._without(
                held_out, partial(self.orders.judgements, base, None, votes, leave_out)
            )
        if self.recipe.reward:
            compared = self._without(held_out, partial(self.orders.comparisons, base, leave_out))
        rewarded = self._rewarded(base, suites, prompts_out) if self.recipe.reinforce else None
        asked = prompts_with_checks(self.sources.asked, prompts_out)
        learner = Learner(self.recipe, self.orders, base, data, judgements, len(asked), rewarded, compared)
        for reason in learner.reasons():
            self.stages.watcher.note(reason)
        trained = learner.trained(self.stages.store)
        forecast = partial(
            plan_finetuning,
            self.recipe,
            base.folder,
            prompts=len(prompts) if self.sources.prompts else self.recipe.evaluate.samples,
            checked_prompts=sum(bool(prompt.checks) for prompt in prompts),
            profile=self.profile,
            started=self.started,
            has_rival=self._has_champion(),
        )
        drawn = len(asked) * self.recipe.prefer.samples if self.recipe.prefer else 0
        plan = self._say(forecast(learner.reports(), trained=trained, drawn_answers=drawn))
        lack = lack_of_disk(
            self.recipe,
            base.folder,
            self.orders.machine,
            data.meta["tokens"]["train"] if data else 0,
            self.profile.disk_free_bytes,
        )
        if lack and set(trained.values()) == {"no"}:
            self.stages.watcher.note(lack)
        serve, types = self.recipe.quantize.serve, tuple(self.recipe.quantize.types)
        base_files = self.stages.do(self.orders.quantize(base.folder, base.source, "base", (serve,)))
        check_prompts(
            prompts,
            base=base.folder,
            chat_template=self.sources.chat_template,
            n_ctx=self.orders.n_ctx(base_files),
        )
        check_prompts(
            asked,
            base=base.folder,
            chat_template=self.sources.chat_template,
            n_ctx=self.orders.n_ctx(base_files),
            key="prefer.prompts",
        )
        pace = None
        if set(trained.values()) != {"done"}:
            threads = engine_threads(base_files, self.orders.threads)
            pace = measure_pace(self.orders.base_gguf(base_files), n_threads=threads)
            plan = self._say(
                forecast(learner.reports(), trained=trained, pace=pace, drawn_answers=drawn), measured=pace
            )

        made: dict[str, Artifact] = {}
        for kind in learner.reports():
            if kind == "prefer" and asked:
                sampled = self._sampled(base, base_files, data, made.get("sft"), prompts_out)
                judgements = self._without(held_out, partial(self.orders.judgements, base, sampled, votes))
                learner, drawn = replace(learner, judgements=judgements), 0
                trained = trained | {kind: "begun"}
            # what the stages before have left of the time
            plan = forecast(learner.reports(), trained=trained, pace=pace, drawn_answers=drawn)
            time = Countdown(plan.train_seconds[kind])
            made[kind] = self.stages.do(learner.job(kind, made, time.left, plan.gradient_checkpointing[kind]))
            trained = trained | {kind: "done"}
        last = made[list(made)[-1]]
        evaluated = data or judgements
        assert evaluated is not None
        is_adapter = adapter_keys(self.recipe)["method"] == "lora"
        merged = self.stages.do(self.orders.merge(base, evaluated, last)) if is_adapter else last
        served = self.stages.do(self.orders.quantize(merged.path / MODEL, merged.id, self.recipe.name, types))
        evaluate = self.stages.do(self.orders.evaluate(base, evaluated, merged, base_files, served))
        gate, rival_id = self._gate(evaluated, merged, base_files, served, evaluate)
        for made_at_last in (evaluate, gate):
            self.warnings += made_at_last.meta["warnings"] if made_at_last else []
        return Results(
            served=served,
            plan=plan.sentences,
            licences=licences_of(base.folder, self.sources),
            pretrain=self.pretrained,
            overlaps=overlaps,
            data=data,
            judgements=judgements,
            compared=compared,
            trained=made,
            merged=merged,
            evaluate=evaluate,
            gate=gate,
            rival_id=rival_id,
        )

    def _rewarded(self, base: Base, suites: Collection[str], leave_out: Sequence[str]) -> Artifact:
        """The stage `prompts`. As in `_without`, only what is asked by a suite, tonight's or an earlier night's, makes
        it another one."""
        asked = {
            key
            for prompt in owners_prompts(self.sources.reinforce)
            for key in asked_keys(prompt.conversation)
        }
        return self.stages.do(self.orders.prompts(base, sorted(asked.intersection(suites)), leave_out))

    def _sampled(
        self,
        base: Base,
        base_files: Artifact,
        data: Artifact | None,
        sft: Artifact | None,
        leave_out: Sequence[str],
    ) -> Artifact:
        """The stage `sample`: answers of what `sft` has made, or of the base, as they would be served."""
        if sft is None or data is None:
            gguf = self.orders.base_gguf(base_files)
            return self.stages.do(self.orders.sample(base.folder, base_files, gguf, leave_out))
        is_adapter = adapter_keys(self.recipe)["method"] == "lora"
        model = self.stages.do(self.orders.merge(base, data, sft)) if is_adapter else sft
        serve = self.recipe.quantize.serve
        files = self.stages.do(self.orders.quantize(model.path / MODEL, model.id, "sft", (serve,)))
        gguf = files.path / f"sft-{serve}.gguf"
        return self.stages.do(self.orders.sample(model.path / MODEL, files, gguf, leave_out))

    def _written(self, found: Feedback | None) -> Artifact | None:
        """Votes or own answers as rows."""
        if found is None:
            return None
        self.stages.watcher.note(found.said)
        return self.stages.do(found.job())

    def _overlaps(self) -> tuple[Artifact | None, list[str], list[str]]:
        """Which rows, and prompts that the model answers, hold what the suites ask, and the hashes of those rows and of
        those prompts that are left out for it."""
        sources = self.sources
        if not sources.prompts or not (sources.train or sources.prefer or sources.answered):
            return None, [], []
        store, job = self.stages.store, self.orders.overlaps()
        found = store.get(job.kind, job.key) or make(store, job, lambda share, seconds_left, note: None)
        if not found.meta["rows"]:
            return found, [], []
        removes = self.recipe.data.decontaminate == "remove"
        what = "they are left out" if removes else "data.decontaminate: remove leaves them out"
        self.stages.watcher.note(f"{found.meta['said']}: {what}")
        hashes = contaminated(found.path) if removes else []
        prompts = {row_of(prompt).content_hash() for prompt in owners_prompts(sources.answered)}
        return found, [h for h in hashes if h not in prompts], [h for h in hashes if h in prompts]

    def _without(self, keys: Collection[str], order: Callable[..., Job]) -> Artifact:
        """The rows without those that ask what the gate asks, by its `asked_keys`. Only where there are such rows is
        anything done again: another prompt in the files must not mean another training."""
        made = self.stages.do(order())
        found = asked_in_training(made.path / ASKED, keys)
        if not found:
            return made
        self.stages.watcher.note(
            f"{len(found)} of the held-out prompts are asked in the training rows too: those rows are held out"
        )
        return self.stages.do(order(keep_out=found))

    def _has_champion(self) -> bool:
        champion = self.stages.ledger.judgements.champion()
        return champion is not None and champion.generation_id is not None

    def _gate(
        self,
        data: Artifact,
        merged: Artifact,
        base_files: Artifact,
        served: Artifact,
        evaluate: Artifact,
    ) -> tuple[Artifact | None, int | None]:
        """The gate's evidence, and whom the new generation was compared with: the champion, None for the base.

        A night that makes the champion again compares it with whom it had beaten, so that nothing is done anew. Where
        the champion's files are gone there is no evidence, and a warning: the night itself is none the worse.
        """
        ledger = self.stages.ledger
        served_file = f"{served.relative_path}/{self.recipe.name}-{self.recipe.quantize.serve}.gguf"
        rival_id = rival_of(ledger, known_generation(ledger, served_file, merged.id))
        try:
            rival = None if rival_id is None else find_rival(self.stages.store, ledger, rival_id)
        except ArtifactError as error:
            self.warnings.append(str(error))
            return None, rival_id
        return self.stages.do(self.orders.gate(data, merged, base_files, served, evaluate, rival)), rival_id

    def _say(self, plan: Plan, measured: Pace | None = None) -> Plan:
        """Note a plan; of the second one, which knows how fast the base answers here, what may have changed."""
        self.stages.ledger.set_plan(self.stages.night_id, asdict(plan))
        sentences = plan.sentences
        if measured is not None:
            read, written = measured.read_tokens_per_s, measured.write_tokens_per_s
            fresh = f"the base reads {read:.0f} and writes {written:.0f} tokens a second here"
            sentences = (fresh, *plan.sentences[1:])
        for sentence in sentences:
            self.stages.watcher.note(sentence)
        return plan

    def _pretraining_time(self) -> Countdown:
        """Half of the budget where fine-tuning follows, else all but a tenth for the files: what comes after
        pre-training must fit too."""
        budget = self.recipe.budget
        left = budget_left(budget, self.profile, self.started)
        seconds = seconds_within(left, prices_of(budget), self.profile.watts)
        share = PRETRAIN_SHARE_BEFORE_SFT if self.recipe.sft or self.recipe.prefer else PRETRAIN_SHARE_ALONE
        return Countdown(None if seconds is None else share * seconds)
