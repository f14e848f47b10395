"""What this machine can do, measured in about a second; and what it draws, measured where it can say so."""

from __future__ import annotations

import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from nomoat.model.load import Machine

WATTS_A_CORE = 12.0
WATTS_BASE = 10.0
WATTS_GPU = 350.0
RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


@dataclass(frozen=True)
class MachineProfile:
    """`gflops` is the measured matrix-product speed in `dtype` on `device`, `cpu_gflops` that of the processor in
    float32 and `cpu_bytes_per_s` how fast it reads memory: GGUF files answer there. `watts` is measured or
    estimated, as `watts_said` tells."""

    device: str
    device_name: str
    dtype: str
    threads: int
    cores: int
    memory_bytes: int
    disk_free_bytes: int
    gflops: float
    cpu_gflops: float
    cpu_bytes_per_s: float
    watts: float
    watts_said: str
    energy_counter: str | None
    python: str
    torch: str
    transformers: str


def probe(machine: Machine, workspace: Path, *, watts: float | None) -> MachineProfile:
    """Measure this machine. `watts` is the owner's own figure, or None to estimate."""
    import transformers

    cores = len(os.sched_getaffinity(0))
    plain = Machine("cpu", torch.float32)
    gflops = _gflops(machine)
    if machine.device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        name = platform.processor() or platform.machine()
    drawn, said = _watts(machine, cores, watts)
    # it counts the processor only, and the owner's own figure goes before it
    counter = str(RAPL) if machine.device == "cpu" and watts is None and os.access(RAPL, os.R_OK) else None
    if counter is not None:
        said = "measured by the processor's own counter, the rest of the machine left out"
    return MachineProfile(
        device=machine.device,
        device_name=name,
        dtype=str(machine.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        cores=cores,
        memory_bytes=free_bytes(machine),
        disk_free_bytes=shutil.disk_usage(workspace).free,
        gflops=gflops,
        cpu_gflops=gflops if machine == plain else _gflops(plain),
        cpu_bytes_per_s=_bytes_per_second(),
        watts=drawn,
        watts_said=said,
        energy_counter=counter,
        python=platform.python_version(),
        torch=str(torch.__version__),
        transformers=transformers.__version__,
    )


def free_bytes(machine: Machine) -> int:
    """Memory that can be had: a GPU's, or the machine's, on Linux with what the system fills with copies of files and
    gives back."""
    if machine.device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gflops(machine: Machine) -> float:
    """Speed of [2048, 512] × [512, 512], a product as fine-tuning makes them; the best of a short second."""
    left = torch.randn(2048, 512, dtype=machine.dtype, device=machine.device)
    right = torch.randn(512, 512, dtype=machine.dtype, device=machine.device)
    best, end = 0.0, time.perf_counter() + 0.8
    while time.perf_counter() < end:
        started = time.perf_counter()
        for _ in range(4):
            left @ right
        if machine.device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 4 * 2 * 2048 * 512 * 512 / (time.perf_counter() - started) / 1e9)
    return best


def _bytes_per_second() -> float:
    """How fast the processor reads 128 MiB, more than its caches hold; the best of four."""
    memory = torch.ones(32 << 20, dtype=torch.float32)
    best = 0.0
    for _ in range(4):
        started = time.perf_counter()
        memory.sum()
        best = max(best, memory.nbytes / (time.perf_counter() - started))
    return best


def _watts(machine: Machine, cores: int, given: float | None) -> tuple[float, str]:
    if given is not None:
        return given, f"{given:g} W, as the recipe says"
    if machine.device == "cuda":
        return WATTS_GPU, f"{WATTS_GPU:g} W, assumed for a GPU under load; set budget.watts"
    estimate = WATTS_BASE + WATTS_A_CORE * cores
    return (
        estimate,
        f"{estimate:g} W, estimated as {WATTS_BASE:g} W + {WATTS_A_CORE:g} W a core; set budget.watts",
    )


class EnergyMeter:
    """Joules since it was made: from the processor's own counter, or time × watts where `counter` is None or
    not readable."""

    def __init__(self, watts: float, counter: Path | None) -> None:
        self._watts, self._counter = watts, counter
        self._started_s, self._started_uj = time.monotonic(), self._read()

    @property
    def measured(self) -> bool:
        """Whether the processor's own counter is read."""
        return self._started_uj is not None

    def joules(self) -> float:
        """Energy so far."""
        now = self._read()
        if self._started_uj is not None and now is not None and now >= self._started_uj:
            return (now - self._started_uj) / 1e6
        return (time.monotonic() - self._started_s) * self._watts

    def _read(self) -> int | None:
        if self._counter is None:
            return None
        try:
            return int(self._counter.read_text())
        except (OSError, ValueError):
            return None


def meter_of(profile: MachineProfile) -> EnergyMeter:
    """A meter that starts now and counts as `watts_said` tells."""
    return EnergyMeter(profile.watts, Path(profile.energy_counter) if profile.energy_counter else None)
