"""Energy: what the machine's own counters say, RAPL for its processors and NVML for NVIDIA accelerators.

A counter belongs to the whole machine, not to a run: what else worked meanwhile is counted too.
"""

import threading
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from journeyman.traces.base import Record

POWERCAP = Path("/sys/class/powercap")
NVIDIA_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


class Counters(Record):
    """One reading; only the difference of two readings of one process means anything."""

    joules: float
    source: str
    """`rapl`, `nvml` or `rapl+nvml`."""


class Counter(Protocol):
    """One device's counter of energy."""

    @property
    def source(self) -> str: ...

    def joules(self) -> float:
        """Never falls within a process; raises `OSError` where the counter cannot be read any more."""
        ...


class Meter:
    """All counters of a machine, added up."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = tuple(counters)
        self._source = "+".join(dict.fromkeys(counter.source for counter in self._counters))
        self._lock = threading.Lock()

    def read(self) -> Counters | None:
        """None where the machine has no counter, or one of them cannot be read any more."""
        if not self._counters:
            return None
        try:
            with self._lock:
                return Counters(joules=sum(counter.joules() for counter in self._counters), source=self._source)
        except OSError:
            return None


class RaplCounter:
    """A processor package under `/sys/class/powercap`. It wraps around, which is seen if it is read at least that often
    (every 20 minutes at 200 W)."""

    source = "rapl"

    def __init__(self, folder: Path) -> None:
        """Raises `OSError` where the counter is not there or may not be read (it often is for root alone)."""
        self._path = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = int(self._path.read_text())
        self._total = self._last

    def joules(self) -> float:
        now = int(self._path.read_text())
        self._total += now - self._last if now >= self._last else now + self._range - self._last
        self._last = now
        return self._total / 1e6


class NvmlCounter:
    """An accelerator's counter since its driver was loaded."""

    source = "nvml"

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self._device = nvml.nvmlDeviceGetHandleByIndex(index)
        self.joules()

    def joules(self) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device)) / 1e3
        except self._nvml.NVMLError as error:
            raise OSError(f"NVML cannot read the energy counter: {error}") from error


def read_counters() -> Counters | None:
    """A reading of this machine's counters; None where it has none that this process may read.

    What is there is looked up once for each process, so that a machine without counters costs a run nothing.
    """
    return _meter().read()


def rapl_counters(powercap: Path = POWERCAP) -> list[RaplCounter]:
    """Counters of the processor packages; their parts (cores, memory) are left out, for they are counted in them."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            if (folder / "name").read_text().startswith("package"):
                found.append(RaplCounter(folder))
        except (OSError, ValueError):
            continue
    return found


def nvml_counters(nvml: Any) -> list[NvmlCounter]:
    """Counters of the accelerators that `nvml`, the module `pynvml`, knows and that have one."""
    found = []
    try:
        nvml.nvmlInit()
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                found.append(NvmlCounter(nvml, index))
            except OSError:
                continue  # Older than Volta: it has no counter.
    except nvml.NVMLError:
        return found
    return found


@cache
def _meter() -> Meter:
    return Meter([*rapl_counters(), *_accelerators()])


def _accelerators() -> list[NvmlCounter]:
    # Looked for first: the import takes 0.2 s, which a machine without an accelerator should not pay.
    if not any(path.exists() for path in NVIDIA_DEVICES):
        return []
    try:
        return nvml_counters(import_module("pynvml"))
    except ModuleNotFoundError:
        return []
