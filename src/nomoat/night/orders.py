"""What each stage of a night is: the job with everything its bytes depend on, from recipe, sources and machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nomoat.ledger.artifacts import Artifact
from nomoat.ledger.files import hash_file
from nomoat.model.load import Machine, choose_machine
from nomoat.night.base import Base, quantize_job, template_input
from nomoat.night.evaluation import run_evaluate, run_evaluate_new_base
from nomoat.night.gate import Rival, run_gate
from nomoat.night.jobs import Job
from nomoat.night.recipes import (
    adapter_keys,
    data_keys,
    first_training,
    judgement_keys,
    policy_keys,
    preference_keys,
    prompt_keys,
    training_keys,
)
from nomoat.night.reinforcement import run_prompts, run_reinforce
from nomoat.night.sampling import PAIRS, run_sample
from nomoat.night.sources import Sources
from nomoat.night.stages import (
    ADAPTER,
    HELD_OUT,
    MODEL,
    run_data,
    run_judgements,
    run_merge,
    run_prefer,
    run_pretrain,
    run_sft,
)
from nomoat.plan.memory import Checkpointing
from nomoat.recipe import GgufType, Recipe
from nomoat.recipe_training import Pretrain

SMALL_FILE_BYTES = 100_000_000


@dataclass(frozen=True)
class Orders:
    """Makes the jobs of one recipe on one machine; in which order they run is the night's."""

    recipe: Recipe
    sources: Sources
    machine: Machine
    threads: int
    stop_asked: Callable[[], bool]

    def pretrain(
        self, section: Pretrain, seconds_left: Callable[[], float | None], checkpointing: Checkpointing
    ) -> Job:
        """A base of one's own. Its key depends neither on the time left nor on what changes memory alone."""
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
        return Job(
            kind="pretrain",
            why=f"a base of {section.num_hidden_layers} layers from your text",
            inputs=self.sources.fingerprints(self.sources.pretrain),
            params={
                "keys": asdict(keys),
                **shape,
                **_bitsandbytes(section.optim != "adamw_torch"),
                "budget": self._limits(),
                **self._where_bytes_depend_on(machine),
            },
            run=partial(
                run_pretrain,
                files=list(self.sources.pretrain),
                machine=machine,
                keys=keys,
                gradient_checkpointing=checkpointing,
                seconds_left=seconds_left,
                stop_asked=self.stop_asked,
                **shape,
            ),
        )

    def data(self, base: Base, keep_out: Sequence[str] = ()) -> Job:
        """Read, check, split and tokenise the owner's rows; those that ask one of `keep_out` are held out."""
        keys = data_keys(self.recipe) | ({"keep_out": list(keep_out)} if keep_out else {})
        return Job(
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

    def sft(
        self,
        base: Base,
        data: Artifact,
        rate: float,
        seconds_left: Callable[[], float | None],
        checkpointing: Checkpointing,
    ) -> Job:
        """Fine-tune the base. Its key depends neither on the time left nor on what changes memory alone."""
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
                "load_in_4bit",
            )
        }
        return Job(
            kind="sft",
            why=f"{section.method} on {data.meta['rows']['train']} rows"
            + (", the base held in 4 bits" if section.load_in_4bit else ""),
            inputs={"base": base.source, "data": data.id},
            params={
                "keys": asdict(keys),
                **lora,
                **_bitsandbytes(section.load_in_4bit or section.optim != "adamw_torch"),
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
                seconds_left=seconds_left,
                stop_asked=self.stop_asked,
                keys=keys,
                gradient_checkpointing=checkpointing,
                **lora,
            ),
        )

    def sample(self, model: Path, files: Artifact, gguf: Path) -> Job:
        """Answers of the file `gguf`, among `files` made from `model`, to prompts whose checks judge them."""
        section = self.recipe.prefer
        assert section is not None
        keys: dict[str, Any] = {
            key: getattr(section, key) for key in ("samples", "temperature", "max_new_tokens")
        }
        keys |= {
            "seed": self.recipe.seed,
            "n_ctx": self.n_ctx(files),
            "threads": engine_threads(files, self.threads),
        }
        return Job(
            kind="sample",
            why=f"{section.samples} answers to each prompt, judged by its checks",
            inputs={"file": files.id, **_hashed("prompts", self.sources.asked)},
            params=keys | {"gguf": gguf.name},
            run=partial(
                run_sample,
                gguf=gguf,
                tokenizer_dir=model,
                chat_template=self.sources.chat_template,
                prompt_files=self.sources.asked,
                stop_asked=self.stop_asked,
                **keys,
            ),
        )

    def judgements(self, base: Base, sampled: Artifact | None = None, keep_out: Sequence[str] = ()) -> Job:
        """Read, check, split and tokenise the owner's judged answers, or those that were sampled; those to one of
        `keep_out` are held out."""
        keys = judgement_keys(self.recipe) | ({"keep_out": list(keep_out)} if keep_out else {})
        files = self.sources.prefer
        inputs = self.sources.fingerprints(files)
        if sampled is not None:
            files, inputs = (str(sampled.path / PAIRS),), {"pairs": sampled.id}
        return Job(
            kind="judgements",
            why=f"{len(files)} file(s) of judged answers to read, check and tokenise",
            inputs={"base": base.source, **inputs, **template_input(self.sources.chat_template)},
            params=keys,
            run=partial(
                run_judgements,
                base=base.folder,
                chat_template=self.sources.chat_template,
                files=list(files),
                **keys,
            ),
        )

    def prefer(
        self,
        base: Base,
        judgements: Artifact,
        sft: Artifact | None,
        rate: float,
        seconds_left: Callable[[], float | None],
        checkpointing: Checkpointing,
    ) -> Job:
        """Learn from judged answers: what `sft` made is trained further, or the base. Its key depends neither on the
        time left nor on what changes memory alone."""
        section = self.recipe.prefer
        assert section is not None
        keys, loss = training_keys(section, rate, self.recipe.seed), preference_keys(section)
        adapter, machine = adapter_keys(self.recipe), choose_machine(section.dtype)
        tuned = {} if sft is None else {"sft": sft.id}
        is_adapter = adapter["method"] == "lora"
        return Job(
            kind="prefer",
            why=f"{section.loss_type} on {judgements.meta['rows']['train']} judged rows",
            inputs={"base": base.source, "judgements": judgements.id, **tuned},
            params={
                "keys": asdict(keys),
                "loss": asdict(loss),
                **adapter,
                **_bitsandbytes(adapter["load_in_4bit"] or section.optim != "adamw_torch"),
                "base_name": base.name,
                "budget": self._limits(),
                **self._where_bytes_depend_on(machine),
            },
            run=partial(
                run_prefer,
                base=sft.path / MODEL if sft and not is_adapter else base.folder,
                adapter=sft.path / ADAPTER if sft and is_adapter else None,
                after_sft=sft is not None,
                base_name=base.name,
                base_sha256=base.sha256,
                judgements=judgements.path,
                chat_template=self.sources.chat_template,
                machine=machine,
                seconds_left=seconds_left,
                stop_asked=self.stop_asked,
                keys=keys,
                loss=loss,
                gradient_checkpointing=checkpointing,
                **adapter,
            ),
        )

    def prompts(self, base: Base) -> Job:
        """Read, check, split and tokenise the prompts that are answered for rewards."""
        files, never, keys = self.sources.reinforce, self.sources.prompts, prompt_keys(self.recipe)
        return Job(
            kind="prompts",
            why=f"{len(files)} file(s) of prompts to read, check and tokenise",
            inputs={
                "base": base.source,
                **_hashed("file", files),
                **_hashed("never", never),
                **template_input(self.sources.chat_template),
            },
            params={**keys, "suites": [path.stem for path in files]},
            run=partial(
                run_prompts,
                base=base.folder,
                chat_template=self.sources.chat_template,
                files=files,
                never=never,
                **keys,
            ),
        )

    def reinforce(
        self,
        base: Base,
        prompts: Artifact,
        evaluated: Artifact,
        trained: Artifact,
        rate: float,
        seconds_left: Callable[[], float | None],
        checkpointing: Checkpointing,
    ) -> Job:
        """Learn from rewards: what `trained` holds is trained further. Its key depends neither on
        the time left nor on what changes memory alone."""
        section = self.recipe.reinforce
        assert section is not None
        keys, policy = training_keys(section, rate, self.recipe.seed), policy_keys(section)
        adapter, machine = adapter_keys(self.recipe), choose_machine(section.dtype)
        is_adapter = adapter["method"] == "lora"
        specs = self.sources.rewards
        return Job(
            kind="reinforce",
            why=f"{section.method} on {prompts.meta['rows']['train']} prompts",
            inputs={
                "base": base.source,
                "prompts": prompts.id,
                "evaluated": evaluated.id,
                "trained": trained.id,
                **_hashed("reward", [spec.file for spec in specs if spec.file is not None]),
            },
            params={
                "keys": asdict(keys),
                "policy": asdict(policy),
                "rewards": [{"kind": spec.kind, "weight": spec.weight, **spec.keys} for spec in specs],
                **adapter,
                **_bitsandbytes(adapter["load_in_4bit"] or section.optim != "adamw_torch"),
                "base_name": base.name,
                "budget": self._limits(),
                **self._where_bytes_depend_on(machine),
            },
            run=partial(
                run_reinforce,
                base=base.folder if is_adapter else trained.path / MODEL,
                adapter=trained.path / ADAPTER if is_adapter else None,
                base_name=base.name,
                base_sha256=base.sha256,
                prompts=prompts.path,
                evaluated=evaluated.path,
                chat_template=self.sources.chat_template,
                rewards=specs,
                machine=machine,
                seconds_left=seconds_left,
                stop_asked=self.stop_asked,
                policy=policy,
                gradient_checkpointing=checkpointing,
                keys=keys,
                **adapter,
            ),
        )

    def merge(self, base: Base, data: Artifact, trained: Artifact) -> Job:
        """Fold the adapter into its base."""
        in_4bit = adapter_keys(self.recipe)["load_in_4bit"]
        return Job(
            kind="merge",
            why="the adapter folded into its base" + (", unquantised" if in_4bit else ""),
            inputs={
                "base": base.source,
                "adapter": trained.id,
                "data": data.id,
                **template_input(self.sources.chat_template),
            },
            params=self._where_bytes_depend_on(),
            run=partial(
                run_merge,
                base=base.folder,
                base_sha256=base.sha256,
                adapter=trained.path / ADAPTER,
                data=data.path,
                chat_template=self.sources.chat_template,
                machine=self.machine,
                trained_in_4bit=in_4bit,
            ),
        )

    def quantize(self, model: Path, source: str, name: str, types: tuple[GgufType, ...]) -> Job:
        """GGUF files of a model folder."""
        return quantize_job(model, source, name=name, types=types, chat_template=self.sources.chat_template)

    def evaluate(
        self, base: Base, data: Artifact, merged: Artifact, base_files: Artifact, served: Artifact
    ) -> Job:
        """Base against tuned model, with the files that answer for them."""
        section, serve = self.recipe.evaluate, self.recipe.quantize.serve
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
        keys |= {"seed": self.recipe.seed, "batch_tokens": first_training(self.recipe).micro_batch_tokens}
        return Job(
            kind="evaluate",
            why="base against tuned model on what no training saw",
            inputs={
                "base": base.source,
                "model": merged.id,
                "data": data.id,
                "base file": base_files.id,
                "file": served.id,
                **_hashed("prompts", self.sources.prompts),
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
                base_gguf=self.base_gguf(base_files),
                gguf_files=served.path,
                tuned_gguf=served.path / f"{self.recipe.name}-{serve}.gguf",
                data=data.path,
                prompt_files=self.sources.prompts,
                machine=self.machine,
                threads=engine_threads(served, self.threads),
                n_ctx=self.n_ctx(base_files),
                **keys,
            ),
        )

    def gate(
        self, data: Artifact, merged: Artifact, served: Artifact, evaluate: Artifact, rival: Rival | None
    ) -> Job:
        """The file that would be served against the champion's; against the base where there is none."""
        section = self.recipe.evaluate
        keys: dict[str, Any] = {
            key: getattr(section, key) for key in ("max_prompts", "max_new_tokens", "max_held_out_rows")
        }
        keys |= {
            "n_ctx": self.n_ctx(served),
            "batch_tokens": first_training(self.recipe).micro_batch_tokens,
        }
        champion = {} if rival is None else {"champion": rival.model_id, "champion file": rival.files_id}
        return Job(
            kind="gate",
            why=f"it or {rival.name if rival else 'the base'}",
            inputs={"evaluate": evaluate.id, "file": served.id, **champion},
            params={
                "rival": rival.name if rival else None,
                "serve": rival.gguf.name if rival else None,
                **keys,
                **self._where_bytes_depend_on(),
            },
            run=partial(
                run_gate,
                evaluated=evaluate.path,
                challenger=merged.path / MODEL,
                data=data.path,
                rival=rival,
                prompt_files=self.sources.prompts,
                machine=self.machine,
                threads=engine_threads(served, self.threads),
                **keys,
            ),
        )

    def evaluate_new_base(self, pretrained: Artifact, served: Artifact) -> Job:
        """Every file against the base from scratch that it was made from."""
        return Job(
            kind="evaluate",
            why="every file against the new base",
            inputs={"model": pretrained.id, "file": served.id},
            params={"threads": self.threads},
            run=partial(
                run_evaluate_new_base,
                model=pretrained.path / MODEL,
                gguf_files=served.path,
                held_out=pretrained.path / HELD_OUT,
                held_out_loss=pretrained.meta["best_loss"],
                n_ctx=int(served.meta["files"][0]["context_length"]),
                threads=engine_threads(served, self.threads),
            ),
        )

    def base_gguf(self, base_files: Artifact) -> Path:
        """The file that answers for the base."""
        return base_files.path / f"base-{self.recipe.quantize.serve}.gguf"

    def n_ctx(self, files: Artifact) -> int:
        """Tokens of the longest conversation that evaluation makes room for."""
        longest = max(section.max_seq_len for section in (self.recipe.sft, self.recipe.prefer) if section)
        answers = [self.recipe.evaluate.max_new_tokens]
        if self.sources.asked and self.recipe.prefer:
            answers.append(self.recipe.prefer.max_new_tokens)
        wanted = longest + max(answers)
        return min(int(files.meta["files"][0]["context_length"]), wanted)

    def _limits(self) -> dict[str, Any]:
        """A deadline can shorten training: what was trained under one is not what is trained under another."""
        budget = self.recipe.budget
        return {"until": budget.until, "hours": budget.hours, "dollars": budget.dollars}

    def _where_bytes_depend_on(self, machine: Machine | None = None) -> dict[str, Any]:
        """Sums come out differently in the last digit on another number of threads."""
        machine = machine or self.machine
        dtype = str(machine.dtype).removeprefix("torch.")
        return {"device": machine.device, "dtype": dtype, "threads": self.threads}


def _hashed(role: str, files: Sequence[Path]) -> dict[str, str]:
    return {f"{role} {index}": f"file:{hash_file(path)}" for index, path in enumerate(files)}


def _bitsandbytes(used: bool) -> dict[str, str]:
    """Its version, where bytes depend on it."""
    return {"bitsandbytes": version("bitsandbytes")} if used else {}


def engine_threads(files: Artifact, threads: int) -> int:
    """Threads to answer with: llama.cpp's threads wait for each other by spinning, which costs a small model
    more than it gives."""
    largest = max(file["bytes"] for file in files.meta["files"])
    return threads if largest > SMALL_FILE_BYTES else 1
