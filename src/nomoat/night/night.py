"""`nomoat run`: a whole night as one function that reads from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from nomoat.engine.pace import Pace, measure_pace
from nomoat.ledger.artifacts import Artifact, ArtifactStore
from nomoat.ledger.files import hash_file
from nomoat.ledger.store import Ledger
from nomoat.model.load import Machine, choose_machine, make_deterministic, resolve_base, set_threads
from nomoat.night.base import Base, quantize_job, template_input
from nomoat.night.books import Books
from nomoat.night.code import code_version
from nomoat.night.deadline import Countdown
from nomoat.night.disk import lack_of_disk
from nomoat.night.evaluation import check_prompts, owners_prompts, run_evaluate, run_evaluate_new_base
from nomoat.night.events import Watcher
from nomoat.night.forecast import Trained, budget_left, plan_finetuning, prices_of
from nomoat.night.jobs import Job
from nomoat.night.recipes import data_keys, resolve_learning_rate, training_keys
from nomoat.night.result import NightSummary, Results
from nomoat.night.runner import Stages
from nomoat.night.sources import Sources, find_sources, licences_of
from nomoat.night.stages import ADAPTER, HELD_OUT, MODEL, run_data, run_merge, run_pretrain, run_sft
from nomoat.plan.planner import Plan, seconds_within
from nomoat.plan.probe import MachineProfile, meter_of, probe
from nomoat.recipe import GgufType, Recipe
from nomoat.recipe_file import LoadedRecipe

SMALL_FILE_BYTES = 100_000_000
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
    machine = choose_machine((recipe.sft or recipe.pretrain).dtype)  # type: ignore[union-attr]
    make_deterministic(machine)
    base_folder = None if recipe.pretrain else resolve_base(recipe.base, loaded.folder)
    store = ArtifactStore(workspace)
    with store.lock(), Ledger.open(store.house / "ledger.db") as ledger:
        store.sweep(max_age_s=STALE_WORK_SECONDS)
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
        night = _Night(recipe, sources, stages, machine, threads, profile, started)
        books = Books(ledger, opened.night, loaded, workspace, stages)
        with books.closed_on_failure():
            base = night.pretrain() if base_folder is None else Base.of(base_folder, recipe.base)
            results = night.finetune(base) if recipe.sft else night.pack_up(base)
            for warning in store.warnings:
                watcher.note(warning)
            return books.close(base.name, base.source, results, warnings=tuple(store.warnings))


@dataclass
class _Night:
    recipe: Recipe
    sources: Sources
    stages: Stages
    machine: Machine
    threads: int
    profile: MachineProfile
    started: datetime
    pretrained: Artifact | None = None

    def pretrain(self) -> Base:
        """The stage `pretrain`: a base of one's own."""
        section = self.recipe.pretrain
        assert section is not None
        machine = choose_machine(section.dtype)
        keys = training_keys(section, section.learning_rate, self.recipe.seed)
        shape: dict[str, Any] = {
            key: getattr(section, key)
            for key in (
                "vocab_size",
                "max_seq_len",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
            )
        }
        shape["held_out_share"] = section.held_out
        artifact = self.stages.do(
            Job(
                kind="pretrain",
                why=f"a base of {section.num_hidden_layers} layers from your text",
                inputs=self.sources.fingerprints(self.sources.pretrain),
                params={
                    "keys": asdict(keys),
                    **shape,
                    "budget": self._limits(),
                    **self._where_bytes_depend_on(machine),
                },
                run=partial(
                    run_pretrain,
                    files=list(self.sources.pretrain),
                    machine=machine,
                    keys=keys,
                    seconds_left=self._pretraining_time().left,
                    stop_asked=self.stages.stop_asked,
                    **shape,
                ),
            )
        )
        self.pretrained = artifact
        return Base.of(artifact.path / MODEL, f"{self.recipe.name} (pre-trained)", artifact.id)

    def pack_up(self, base: Base) -> Results:
        """A night without fine-tuning ends with the base's own files."""
        assert self.pretrained is not None
        served = self._quantize(base.folder, base.source, self.recipe.name, tuple(self.recipe.quantize.types))
        evaluate = self.stages.do(
            Job(
                kind="evaluate",
                why="every file against the new base",
                inputs={"model": self.pretrained.id, "file": served.id},
                params={"threads": self.threads},
                run=partial(
                    run_evaluate_new_base,
                    model=base.folder,
                    gguf_files=served.path,
                    held_out=self.pretrained.path / HELD_OUT,
                    held_out_loss=self.pretrained.meta["best_loss"],
                    n_ctx=int(served.meta["files"][0]["context_length"]),
                    threads=engine_threads(served, self.threads),
                ),
            )
        )
        return Results(served=served, evaluate=evaluate, pretrain=self.pretrained)

    def finetune(self, base: Base) -> Results:
        """data, sft, merge, quantize, evaluate. The base is quantised before it is trained, so that what cannot
        be served, or not be asked, is refused while it has cost nothing."""
        assert self.recipe.sft is not None
        data = self._data(base)
        rate, reason = resolve_learning_rate(self.recipe.sft, base.width)
        self.stages.watcher.note(reason)
        trained = self._trained(self._sft_job(base, data, rate, Countdown(None)))
        forecast = partial(
            plan_finetuning,
            self.recipe,
            base.folder,
            data.meta,
            self._count_prompts(),
            self.profile,
            self.started,
            trained=trained,
        )
        plan = self._say(forecast())
        lack = lack_of_disk(
            self.recipe,
            base.folder,
            self.machine,
            data.meta["tokens"]["train"],
            self.profile.disk_free_bytes,
        )
        if lack and trained == "no":
            self.stages.watcher.note(lack)
        base_files = self._quantize(base.folder, base.source, "base", (self.recipe.quantize.serve,))
        check_prompts(
            self.sources.prompts,
            base=base.folder,
            chat_template=self.sources.chat_template,
            max_prompts=self.recipe.evaluate.max_prompts,
            n_ctx=self._n_ctx(base_files),
        )
        if trained != "done":
            pace = measure_pace(
                self._base_gguf(base_files), n_threads=engine_threads(base_files, self.threads)
            )
            plan = self._say(forecast(pace=pace), measured=pace)
        sft = self.stages.do(self._sft_job(base, data, rate, Countdown(plan.train_seconds)))
        merged = self._merge(base, data, sft) if self.recipe.sft.method == "lora" else sft
        types = tuple(self.recipe.quantize.types)
        served = self._quantize(merged.path / MODEL, merged.id, self.recipe.name, types)
        evaluate = self._evaluate(base, data, merged, base_files, served)
        return Results(
            served=served,
            plan=plan.sentences,
            licences=licences_of(base.folder, self.sources),
            pretrain=self.pretrained,
            data=data,
            sft=sft,
            merged=merged,
            evaluate=evaluate,
        )

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

    def _base_gguf(self, base_files: Artifact) -> Path:
        return base_files.path / f"base-{self.recipe.quantize.serve}.gguf"

    def _data(self, base: Base) -> Artifact:
        keys = data_keys(self.recipe)
        return self.stages.do(
            Job(
                kind="data",
                why=f"{len(self.sources.train)} file(s) to read, check and tokenise",
                inputs={
                    "base": base.source,
                    **self.sources.fingerprints(self.sources.train),
                    **template_input(self.sources.chat_template),
                },
                params=keys,
                run=partial(
                    run_data,
                    base=base.folder,
                    chat_template=self.sources.chat_template,
                    files=list(self.sources.train),
                    **keys,
                ),
            )
        )

    def _trained(self, job: Job) -> Trained:
        """How much of a training job an earlier run has done."""
        store = self.stages.store
        if store.get(job.kind, job.key) is not None:
            return "done"
        return "begun" if store.has_begun(job.kind, job.key) else "no"

    def _sft_job(self, base: Base, data: Artifact, rate: float, countdown: Countdown) -> Job:
        """The stage `sft`. Its key does not depend on the countdown."""
        section = self.recipe.sft
        assert section is not None
        keys = training_keys(section, rate, self.recipe.seed)
        lora: dict[str, Any] = {
            key: getattr(section, key)
            for key in (
                "method",
                "lora_r",
                "lora_alpha",
                "lora_dropout",
                "lora_target_modules",
                "lora_layers",
                "frozen_cache",
            )
        }
        return Job(
            kind="sft",
            why=f"{section.method} on {data.meta['rows']['train']} rows",
            inputs={"base": base.source, "data": data.id},
            params={
                "keys": asdict(keys),
                **lora,
                "base_name": base.name,
                "budget": self._limits(),
                **self._where_bytes_depend_on(),
            },
            run=partial(
                run_sft,
                base=base.folder,
                base_name=base.name,
                base_sha256=base.sha256,
                data=data.path,
                chat_template=self.sources.chat_template,
                machine=self.machine,
                seconds_left=countdown.left,
                stop_asked=self.stages.stop_asked,
                keys=keys,
                **lora,
            ),
        )

    def _merge(self, base: Base, data: Artifact, sft: Artifact) -> Artifact:
        return self.stages.do(
            Job(
                kind="merge",
                why="the adapter folded into its base",
                inputs={
                    "base": base.source,
                    "adapter": sft.id,
                    "data": data.id,
                    **template_input(self.sources.chat_template),
                },
                params=self._where_bytes_depend_on(),
                run=partial(
                    run_merge,
                    base=base.folder,
                    base_sha256=base.sha256,
                    adapter=sft.path / ADAPTER,
                    data=data.path,
                    chat_template=self.sources.chat_template,
                    machine=self.machine,
                ),
            )
        )

    def _quantize(self, model: Path, source: str, name: str, types: tuple[GgufType, ...]) -> Artifact:
        template = self.sources.chat_template
        return self.stages.do(quantize_job(model, source, name=name, types=types, chat_template=template))

    def _evaluate(
        self, base: Base, data: Artifact, merged: Artifact, base_files: Artifact, served: Artifact
    ) -> Artifact:
        section, sft, serve = self.recipe.evaluate, self.recipe.sft, self.recipe.quantize.serve
        assert sft is not None
        keys: dict[str, Any] = {
            key: getattr(section, key)
            for key in (
                "max_prompts",
                "max_new_tokens",
                "max_held_out_rows",
                "samples",
                "confidence",
                "bootstrap_samples",
            )
        }
        keys |= {"seed": self.recipe.seed, "batch_tokens": sft.micro_batch_tokens}
        prompts = {f"prompts {i}": f"file:{hash_file(path)}" for i, path in enumerate(self.sources.prompts)}
        return self.stages.do(
            Job(
                kind="evaluate",
                why="base against tuned model on what no training saw",
                inputs={
                    "base": base.source,
                    "model": merged.id,
                    "data": data.id,
                    "base file": base_files.id,
                    "file": served.id,
                    **prompts,
                },
                params={
                    "serve": serve,
                    "suites": [path.stem for path in self.sources.prompts],
                    **keys,
                    **self._where_bytes_depend_on(),
                },
                run=partial(
                    run_evaluate,
                    base=base.folder,
                    tuned=merged.path / MODEL,
                    base_gguf=self._base_gguf(base_files),
                    gguf_files=served.path,
                    tuned_gguf=served.path / f"{self.recipe.name}-{serve}.gguf",
                    data=data.path,
                    prompt_files=self.sources.prompts,
                    machine=self.machine,
                    threads=engine_threads(served, self.threads),
                    n_ctx=self._n_ctx(base_files),
                    **keys,
                ),
            )
        )

    def _n_ctx(self, files: Artifact) -> int:
        """Tokens of the longest conversation that evaluation makes room for."""
        sft = self.recipe.sft
        assert sft is not None
        wanted = sft.max_seq_len + self.recipe.evaluate.max_new_tokens
        return min(int(files.meta["files"][0]["context_length"]), wanted)

    def _count_prompts(self) -> int:
        section = self.recipe.evaluate
        if not self.sources.prompts:
            return section.samples
        return len(owners_prompts(self.sources.prompts, section.max_prompts))

    def _limits(self) -> dict[str, Any]:
        """A deadline can shorten training: what was trained under one is not what is trained under another."""
        budget = self.recipe.budget
        return {"until": budget.until, "hours": budget.hours, "dollars": budget.dollars}

    def _where_bytes_depend_on(self, machine: Machine | None = None) -> dict[str, Any]:
        """Sums come out differently in the last digit on another number of threads."""
        machine = machine or self.machine
        dtype = str(machine.dtype).removeprefix("torch.")
        return {"device": machine.device, "dtype": dtype, "threads": self.threads}

    def _pretraining_time(self) -> Countdown:
        """Half of the budget where fine-tuning follows, else all but a tenth for the files: what comes after
        pre-training must fit too."""
        budget = self.recipe.budget
        left = budget_left(budget, self.profile, self.started)
        seconds = seconds_within(left, prices_of(budget), self.profile.watts)
        share = PRETRAIN_SHARE_BEFORE_SFT if self.recipe.sft else PRETRAIN_SHARE_ALONE
        return Countdown(None if seconds is None else share * seconds)


def engine_threads(files: Artifact, threads: int) -> int:
    """Threads to answer with: llama.cpp's threads wait for each other by spinning, which costs a small model
    more than it gives."""
    largest = max(file["bytes"] for file in files.meta["files"])
    return threads if largest > SMALL_FILE_BYTES else 1
