"""What each stage of a night is: the job with everything its bytes depend on, from recipe, sources and machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nomoat.ledger.artifacts import Artifact
from nomoat.night.base import Base, quantize_job, template_input
from nomoat.night.contamination import run_overlaps
from nomoat.night.evaluation import run_evaluate, run_evaluate_new_base
from nomoat.night.feedback import ROWS
from nomoat.night.gate import Rival, run_gate
from nomoat.night.held_out import HELD_OUT
from nomoat.night.jobs import Job
from nomoat.night.recipes import (
    adapter_keys,
    comparison_keys,
    data_keys,
    first_training,
    judgement_keys,
    micro_batch_tokens,
    prompt_keys,
)
from nomoat.night.reinforcement import run_prompts
from nomoat.night.sampling import PAIRS, run_sample
from nomoat.night.stages import (
    ADAPTER,
    MODEL,
    run_data,
    run_judgements,
    run_merge,
)
from nomoat.night.training_orders import TrainingOrders, hashed, prompts_with_functions
from nomoat.recipe import GgufType

SMALL_FILE_BYTES = 100_000_000


class Orders(TrainingOrders):
    """Makes the jobs of one recipe on one machine; in which order they run is the night's."""

    def overlaps(self) -> Job:
        """Look for what the suites ask among the owner's rows."""
        train, judged, suites = self.sources.train, self.sources.judged, self.sources.prompts
        prompts = self.sources.answered
        return Job(
            kind="overlaps",
            why=f"rows against {len(suites)} suite(s)",
            inputs={
                **self.sources.fingerprints(train),
                **{f"judged {k}": v for k, v in self.sources.fingerprints(judged).items()},
                **hashed("prompts", prompts),
                **hashed("suite", suites),
            },
            params={"format": self.recipe.data.format, "suites": [path.stem for path in suites]},
            run=partial(
                run_overlaps,
                train=train,
                format=self.recipe.data.format,
                judged=judged,
                prompts=prompts,
                suites=suites,
            ),
        )

    def data(
        self,
        base: Base,
        own_answers: Artifact | None = None,
        leave_out: Sequence[str] = (),
        keep_out: Sequence[str] = (),
    ) -> Job:
        """Read, check, split and tokenise the owner's rows, with what he would have answered himself, but for those to
        leave out (hashes of their content); those that ask one of `keep_out` are held out."""
        keys = data_keys(self.recipe) | _given(leave_out=leave_out, keep_out=keep_out)
        return Job(
            kind="data",
            why=f"{len(self.sources.train)} file(s) to read, check and tokenise",
            inputs={
                "base": base.source,
                **self.sources.fingerprints(self.sources.train),
                **({} if own_answers is None else {"own answers": own_answers.id}),
                **template_input(self.sources.chat_template),
            },
            params=keys,
            run=partial(
                run_data,
                base=base.folder,
                chat_template=self.sources.chat_template,
                files=list(self.sources.train),
                conversations=[] if own_answers is None else [own_answers.path / ROWS],
                **keys,
            ),
        )

    def sample(self, model: Path, files: Artifact, gguf: Path, leave_out: Sequence[str] = ()) -> Job:
        """Answers of the file `gguf`, among `files` made from `model`, to prompts whose checks judge them, but for
        those to leave out (hashes of their content)."""
        section = self.recipe.prefer
        assert section is not None
        keys: dict[str, Any] = {
            key: getattr(section, key) for key in ("samples", "temperature", "max_new_tokens")
        }
        keys |= {
            "seed": self.recipe.seed,
            "n_ctx": self.n_ctx(files),
            "threads": engine_threads(files, self.threads),
            **_given(leave_out=leave_out),
        }
        return Job(
            kind="sample",
            why=f"{section.samples} answers to each prompt, judged by its checks",
            inputs={"file": files.id, **prompts_with_functions(self.sources.asked)},
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

    def judgements(
        self,
        base: Base,
        sampled: Artifact | None = None,
        votes: Artifact | None = None,
        leave_out: Sequence[str] = (),
        keep_out: Sequence[str] = (),
    ) -> Job:
        """Read, check, split and tokenise the owner's judged answers, or those that were sampled, and votes; as in
        `data`, rows are left out, or held out."""
        keys = judgement_keys(self.recipe) | _given(leave_out=leave_out, keep_out=keep_out)
        files = self.sources.prefer
        inputs = self.sources.fingerprints(files)
        if sampled is not None:
            files, inputs = (str(sampled.path / PAIRS),), {"pairs": sampled.id}
        if votes is not None:
            files, inputs = (*files, str(votes.path / ROWS)), inputs | {"votes": votes.id}
        return self._judged(base, files, inputs, keys)

    def comparisons(self, base: Base, leave_out: Sequence[str] = (), keep_out: Sequence[str] = ()) -> Job:
        """Read, check, split and tokenise the judged answers that the reward model learns from; as in `data`, rows are
        left out, or held out."""
        keys = comparison_keys(self.recipe) | _given(leave_out=leave_out, keep_out=keep_out)
        files = self.sources.compared
        return self._judged(base, files, self.sources.fingerprints(files), keys, " for the reward model")

    def _judged(
        self,
        base: Base,
        files: Sequence[str],
        inputs: Mapping[str, str],
        keys: dict[str, Any],
        what_for: str = "",
    ) -> Job:
        return Job(
            kind="judgements",
            why=f"{len(files)} file(s) of judged answers to read, check and tokenise{what_for}",
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

    def prompts(self, base: Base, never: Sequence[str] = (), leave_out: Sequence[str] = ()) -> Job:
        """Read, check, split and tokenise the prompts that are answered for rewards, but for those that ask one of
        `never` (keys), or are to be left out (hashes of their content)."""
        files, keys = (
            self.sources.reinforce,
            prompt_keys(self.recipe) | _given(never=never, leave_out=leave_out),
        )
        return Job(
            kind="prompts",
            why=f"{len(files)} file(s) of prompts to read, check and tokenise",
            inputs={
                "base": base.source,
                **hashed("file", files),
                **template_input(self.sources.chat_template),
            },
            params={**keys, "suites": [path.stem for path in files]},
            run=partial(
                run_prompts,
                base=base.folder,
                chat_template=self.sources.chat_template,
                files=files,
                **keys,
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
        keys |= {"seed": self.recipe.seed, "batch_tokens": self._batch_tokens()}
        return Job(
            kind="evaluate",
            why="base against tuned model on what no training saw",
            inputs={
                "base": base.source,
                "model": merged.id,
                "data": data.id,
                "base file": base_files.id,
                "file": served.id,
                **prompts_with_functions(self.sources.prompts),
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
        self,
        data: Artifact,
        merged: Artifact,
        base_files: Artifact,
        served: Artifact,
        evaluate: Artifact,
        rival: Rival | None,
    ) -> Job:
        """The file that would be served against the champion's; against the base where there is none."""
        section = self.recipe.evaluate
        keys: dict[str, Any] = {
            key: getattr(section, key) for key in ("max_prompts", "max_new_tokens", "max_held_out_rows")
        }
        keys |= {"n_ctx": self.n_ctx(served)}
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
                challenger_gguf=served.path / f"{self.recipe.name}-{self.recipe.quantize.serve}.gguf",
                base_gguf=self.base_gguf(base_files),
                data=data.path,
                rival=rival,
                prompt_files=self.sources.prompts,
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

    def _batch_tokens(self) -> int:
        """Tokens that are evaluated at once: as many as training computed."""
        method = adapter_keys(self.recipe)["method"]
        return micro_batch_tokens(first_training(self.recipe), self.machine, method)

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


def _given(**lists: Sequence[str]) -> dict[str, list[str]]:
    """Those that hold something: an empty one changes nothing, and must not name another artifact."""
    return {name: list(values) for name, values in lists.items() if values}


def engine_threads(files: Artifact, threads: int) -> int:
    """Threads to answer with: llama.cpp's threads wait for each other by spinning, which costs a small model
    more than it gives."""
    largest = max(file["bytes"] for file in files.meta["files"])
    return threads if largest > SMALL_FILE_BYTES else 1
