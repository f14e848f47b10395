"""One process a side: the parent lets one of them train a pass at a time, so that all share the machine fairly
and each has a peak of memory of its own.

The parent writes the job as the first line, then a line for each pass; the side answers each with a line of
JSON, a `Pass`. When the parent closes the pipe, the side ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from nomoat.model.load import Machine
from training.cases import Case, Shape
from training.material import Material, material_of

BENCH = Path(__file__).parent.parent


@dataclass(frozen=True)
class Job:
    """What a side is told. With `curve_steps` it trains one pass of so many steps of `Material.curve_plan`,
    otherwise passes over all rows in the batches it likes best."""

    side: str
    settings: dict[str, Any]
    case: Case
    folder: str
    rows: int
    passes: int
    curve_steps: int | None
    device: str
    bf16: bool
    threads: int

    @property
    def material(self) -> Material:
        return material_of(self.case, Path(self.folder), self.rows)

    @property
    def machine(self) -> Machine:
        return Machine(self.device, torch.bfloat16 if self.bf16 else torch.float32)

    @property
    def weights(self) -> torch.dtype:
        """Frozen weights as the machine computes; weights that learn in float32, as AdamW needs them."""
        return torch.bfloat16 if self.bf16 and self.case.lora else torch.float32

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Job:
        fields = json.loads(text)
        case = fields["case"]
        return Job(**fields | {"case": Case(**case | {"shape": Shape(**case["shape"])})})


@dataclass(frozen=True)
class Pass:
    """One pass of one side. The first one's seconds are its warm-up, loading and compiling included.

    Where `cpu_seconds` are far below seconds × threads, something else had the machine."""

    seconds: float
    cpu_seconds: float
    real_tokens: int
    supervised_tokens: int
    losses: list[float]
    peak_bytes: int


class Meter:
    """In the side: what it trained since the parent last let it go on."""

    def __init__(self, goes: TextIO, reports: TextIO) -> None:
        self._goes, self._reports = goes, reports
        self._begin()

    def step(self, loss: Any, real_tokens: Any, supervised_tokens: Any) -> None:
        """After each step; tensors are read only once the pass is over, so that counting costs nothing."""
        self._steps.append((loss, real_tokens, supervised_tokens))

    def pass_ends(self) -> None:
        """Report, and wait for the next turn; the process ends here when there is none."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._started
        done = Pass(
            seconds=seconds,
            cpu_seconds=time.process_time() - self._cpu_started,
            real_tokens=sum(int(real) for _, real, _ in self._steps),
            supervised_tokens=sum(int(supervised) for _, _, supervised in self._steps),
            losses=[float(loss) for loss, _, _ in self._steps],
            peak_bytes=peak_bytes(),
        )
        print(json.dumps(asdict(done)), file=self._reports, flush=True)
        self._begin()

    def _begin(self) -> None:
        if not self._goes.readline():
            raise SystemExit(0)
        self._steps: list[tuple[Any, Any, Any]] = []
        self._started, self._cpu_started = time.perf_counter(), time.process_time()


def peak_bytes() -> int:
    """Most memory this process ever held: the device's where there is one, else VmHWM of Linux."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


class Process:
    """In the parent: a side that runs."""

    def __init__(self, job: Job, log: Path) -> None:
        self.job, self._log = job, log
        threads = str(job.threads)
        folders = [
            Path(folder).resolve() for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, [BENCH, *folders])),
            "OMP_NUM_THREADS": threads,
            "TORCHINDUCTOR_COMPILE_THREADS": threads,
            "TORCHINDUCTOR_CACHE_DIR": str(
                log.with_suffix(".compiled")
            ),  # or a rerun would not count compiling
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        with log.open("wb") as chatter:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "training.side"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=chatter,
                env=environment,
                cwd=job.folder,
                text=True,
            )
        self._tell(job.to_json())

    def next_pass(self) -> Pass:
        """Let it train one pass. RuntimeError with the end of its log where it died."""
        self._tell("go")
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            end = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
            raise RuntimeError(f"{self.job.side} ended with {self._process.wait()}:\n{end}")
        return Pass(**json.loads(line))

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the pipe, upon which it ends; after an error it may be within a pass, and is stopped."""
        if kind is not None:
            self._process.kill()
        with suppress(BrokenPipeError):
            self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died: reading its answer says so
            print(line, file=self._process.stdin, flush=True)
