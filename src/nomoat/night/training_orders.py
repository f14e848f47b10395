"""What each stage that trains is: the job with everything its bytes depend on, from recipe, sources and machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nomoat.data.functions.modules import with_imports
from nomoat.evaluate.checker import function_files
from nomoat.ledger.artifacts import Artifact
from nomoat.ledger.files import hash_file
from nomoat.model.fused import compiled
from nomoat.model.load import Machine, choose_machine, fingerprint
from nomoat.night.base import Base, template_input
from nomoat.night.evaluation import owners_prompts
from nomoat.night.jobs import Job
from nomoat.night.recipes import adapter_keys, policy_keys, preference_keys, training_keys
from nomoat.night.reinforcement import run_reinforce
from nomoat.night.rewarding import run_reward
from nomoat.night.sources import RewardSpec, Sources
from nomoat.night.stages import ADAPTER, MODEL, run_prefer, run_pretrain, run_sft
from nomoat.plan.memory import Checkpointing
from nomoat.recipe import Recipe
from nomoat.recipe_training import Pretrain


@dataclass(frozen=True)
class TrainingOrders:
    """Makes the jobs that train, of one recipe on one machine."""

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
        keys = training_keys(section, section.learning_rate, self.recipe.seed, machine, "full")
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
        keys = training_keys(section, rate, self.recipe.seed, self.machine, section.method)
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

    def reward(
        self,
        base: Base,
        comparisons: Artifact,
        rate: float,
        seconds_left: Callable[[], float | None],
        checkpointing: Checkpointing,
    ) -> Job:
        """A reward model of the base. Its key depends neither on the time left nor on what changes memory alone."""
        section = self.recipe.reward
        assert section is not None
        machine = choose_machine(section.dtype)
        keys = training_keys(section, rate, self.recipe.seed, machine, section.method)
        names = ("method", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
        adapter = {name: getattr(section, name) for name in names}
        confidence = self.recipe.evaluate.confidence
        return Job(
            kind="reward",
            why=f"a reward model from {comparisons.meta['rows']['train']} judged pairs",
            inputs={
                "base": base.source,
                "judgements": comparisons.id,
                **template_input(self.sources.chat_template),
            },
            params={
                "keys": asdict(keys),
                **adapter,
                **_bitsandbytes(section.optim != "adamw_torch"),
                "confidence": confidence,
                "budget": self._limits(),
                **self._where_bytes_depend_on(machine),
            },
            run=partial(
                run_reward,
                base=base.folder,
                comparisons=comparisons.path,
                chat_template=self.sources.chat_template,
                confidence=confidence,
                machine=machine,
                seconds_left=seconds_left,
                stop_asked=self.stop_asked,
                keys=keys,
                gradient_checkpointing=checkpointing,
                **adapter,
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
        adapter, loss = adapter_keys(self.recipe), preference_keys(section)
        machine = choose_machine(section.dtype)
        keys = training_keys(section, rate, self.recipe.seed, machine, adapter["method"])
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

    def reinforce(
        self,
        base: Base,
        prompts: Artifact,
        evaluated: Artifact,
        trained: Artifact,
        scorer: Artifact | None,
        rate: float,
        seconds_left: Callable[[], float | None],
        checkpointing: Checkpointing,
    ) -> Job:
        """Learn from rewards: what `trained` holds is trained further; `scorer` is this night's reward model. Its key
        depends neither on the time left nor on what changes memory alone."""
        section = self.recipe.reinforce
        assert section is not None
        adapter, policy = adapter_keys(self.recipe), policy_keys(section)
        machine = choose_machine(section.dtype)
        keys = training_keys(section, rate, self.recipe.seed, machine, adapter["method"])
        is_adapter = adapter["method"] == "lora"
        specs = [_with_model(spec, scorer) for spec in self.sources.rewards]
        by_vllm = section.rollouts == "vllm"
        return Job(
            kind="reinforce",
            why=f"{section.method} on {prompts.meta['rows']['train']} prompts",
            inputs={
                "base": base.source,
                "prompts": prompts.id,
                "evaluated": evaluated.id,
                "trained": trained.id,
                **_judges(specs),
                **hashed("function", function_files(owners_prompts(self.sources.reinforce))),
                **({} if scorer is None else {"reward model": scorer.id}),
            },
            params={
                "keys": asdict(keys),
                "policy": asdict(policy),
                **({"rollouts": "vllm"} if by_vllm else {}),
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
                prompt_folders=[file.parent for file in self.sources.reinforce],
                evaluated=evaluated.path,
                chat_template=self.sources.chat_template,
                rewards=specs,
                machine=machine,
                seconds_left=seconds_left,
                stop_asked=self.stop_asked,
                policy=policy,
                gradient_checkpointing=checkpointing,
                vllm_memory=section.vllm_memory if by_vllm else None,
                keys=keys,
                **adapter,
            ),
        )

    def _limits(self) -> dict[str, Any]:
        """A deadline can shorten training: what was trained under one is not what is trained under another."""
        budget = self.recipe.budget
        return {"until": budget.until, "hours": budget.hours, "dollars": budget.dollars}

    def _where_bytes_depend_on(self, machine: Machine | None = None) -> dict[str, Any]:
        """Sums come out differently in the last digit on another number of threads, and without a compiler."""
        machine = machine or self.machine
        dtype = str(machine.dtype).removeprefix("torch.")
        in_c = machine.device == "cpu" and compiled.is_there(machine.dtype)
        return {"device": machine.device, "dtype": dtype, "threads": self.threads, "in_c": in_c}


def hashed(role: str, files: Sequence[Path]) -> dict[str, str]:
    """role -> sha256 of these files, in order."""
    return {f"{role} {index}": f"file:{hash_file(path)}" for index, path in enumerate(files)}


def prompts_with_functions(files: Sequence[Path]) -> dict[str, str]:
    """role -> sha256 of files of prompts, and of the owner's functions that check them."""
    return hashed("prompts", files) | hashed("function", function_files(owners_prompts(files)))


def _with_model(spec: RewardSpec, scorer: Artifact | None) -> RewardSpec:
    """A source with the reward model of this night, where it names no other."""
    if spec.kind != "reward_model" or spec.file is not None:
        return spec
    assert scorer is not None
    return replace(spec, file=scorer.path / MODEL)


def _judges(specs: Sequence[RewardSpec]) -> dict[str, str]:
    """role -> sha256 of the owner's files and reward models that judge."""
    files = [
        file
        for spec in specs
        if spec.file is not None and spec.kind != "reward_model"
        for file in (with_imports(spec.file) if spec.kind == "function" else [spec.file])
    ]
    folders = [spec.file for spec in specs if spec.file is not None and "path" in spec.keys]
    return hashed("reward", files) | {
        f"reward model {index}": f"folder:{fingerprint(folder)}" for index, folder in enumerate(folders)
    }


def _bitsandbytes(used: bool) -> dict[str, str]:
    """Its version, where bytes depend on it."""
    return {"bitsandbytes": version("bitsandbytes")} if used else {}
