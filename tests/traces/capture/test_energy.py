"""Energy: the machine's counters, as files and as a library that a machine without an accelerator can stand in for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from journeyman.traces.capture.energy import Counters, Meter, nvml_counters, rapl_counters, read_counters


def domain(powercap: Path, folder: str, name: str, microjoules: int, wraps_at: int = 1_000_000_000) -> Path:
    (powercap / folder).mkdir()
    (powercap / folder / "name").write_text(f"{name}\n")
    (powercap / folder / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    counter = powercap / folder / "energy_uj"
    counter.write_text(f"{microjoules}\n")
    return counter


class NvmlError(Exception):
    """What the library raises."""


def nvml(*millijoules: int | None, broken: bool = False) -> Any:
    """The library over devices with these readings; None for a device without a counter."""

    def start() -> None:
        if broken:
            raise NvmlError("Driver/library version mismatch")

    def read(device: int) -> int:
        reading = millijoules[device]
        if reading is None:
            raise NvmlError("Not Supported")
        return reading

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=start,
        nvmlDeviceGetCount=lambda: len(millijoules),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=read,
    )


def joules(meter: Meter) -> float:
    reading = meter.read()
    assert reading is not None
    return reading.joules


def test_the_packages_are_added_up_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    domain(tmp_path, "intel-rapl:0:0", "core", 4_000_000)
    domain(tmp_path, "intel-rapl:1", "package-1", 2_500_000)
    domain(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    assert Meter(rapl_counters(tmp_path)).read() == Counters(joules=7.5, source="rapl")


def test_a_counter_that_wraps_around_goes_on_rising(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 900_000_000)
    meter = Meter(rapl_counters(tmp_path))
    before = joules(meter)
    counter.write_text("50000000")
    assert joules(meter) - before == pytest.approx(150)
    counter.write_text("60000000")
    assert joules(meter) - before == pytest.approx(160)


def test_what_may_not_be_read_is_no_counter(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 1)
    counter.unlink()
    counter.symlink_to(tmp_path / "gone")
    assert rapl_counters(tmp_path) == []
    domain(tmp_path, "intel-rapl:1", "package-1", 1).write_text("not a number")
    assert rapl_counters(tmp_path) == []
    assert rapl_counters(tmp_path / "nowhere") == []
    assert Meter([]).read() is None


def test_a_counter_that_goes_away_gives_no_reading_and_no_error(tmp_path: Path) -> None:
    counter = domain(tmp_path, "intel-rapl:0", "package-0", 1)
    meter = Meter(rapl_counters(tmp_path))
    counter.unlink()
    assert meter.read() is None


def test_accelerators_without_a_counter_are_left_out() -> None:
    assert Meter(nvml_counters(nvml(1500, None, 500))).read() == Counters(joules=2.0, source="nvml")
    assert nvml_counters(nvml(broken=True)) == []


def test_both_kinds_make_one_reading(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    meter = Meter([*rapl_counters(tmp_path), *nvml_counters(nvml(1000))])
    assert meter.read() == Counters(joules=2.0, source="rapl+nvml")


def test_this_machine_can_be_asked_whatever_it_has() -> None:
    first, second = read_counters(), read_counters()
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert second.joules >= first.joules
