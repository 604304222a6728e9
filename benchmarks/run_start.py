"""Claim: a run's start costs less than a millisecond, however large its adapters and however long the journal.

A workspace with 10,000 promotions in its journal, and a 1 GiB adapter that `[agents]` names. Timed is what each new run
asks, `CurrentPolicies`, which works on the event loop while all other runs wait: when `Runtime.open` asks it first, for
each run, and for the one after another process promoted or the project's file was written. Beside it: the whole way
from `Runtime.run` to the first model call with those policies and with a table in memory, and one hash of the weights.
"""

import argparse
import asyncio
import json
import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

from _record import write_result

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer
from journeyman.runtime.adapters.adapter import CONFIG, WEIGHTS, Adapter, Probe, digest_files, write_adapter
from journeyman.runtime.adapters.current import TICK_NS, CurrentPolicies
from journeyman.runtime.adapters.journal import Entry, Journal
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace

GIB = 2**30
PROJECT = '[agents.worker]\npolicy = "worker@1"\n'
CREW = Crew(name="crew", orchestrator=None, workers=(Agent(name="worker", instructions="Work."),))


def make_workspace(folder: Path, *, weights: int, entries: int) -> Workspace:
    workspace = Workspace(folder / ".journeyman").create()
    workspace.config_file.write_text(PROJECT)
    _make_adapter(workspace.adapters / "worker@1", weights)
    before = None
    with workspace.journal.open("w") as file:
        for number in range(1, entries + 1):
            entry = _promotion(number).sealed(before)
            file.write(entry.model_dump_json() + "\n")
            before = entry.checksum
    _settle()
    return workspace


def _make_adapter(folder: Path, weights: int) -> None:
    """PEFT's two files, with as many bytes of weights, all of them on the disk."""
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}))
    tensor = {"dtype": "BF16", "shape": [weights // 2], "data_offsets": [0, weights]}
    header = json.dumps({"q_proj.lora_A.weight": tensor}).encode()
    block = os.urandom(2**20)
    with (folder / WEIGHTS).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _ in range(weights // len(block)):
            file.write(block)
    adapter = Adapter(
        agent="worker",
        number=1,
        base_digest="b" * 64,
        digest=digest_files(folder),
        method="sft",
        dataset_digest="d" * 64,
        rows=1,
        recipe_digest="e" * 64,
        rank=8,
        train_seconds=1.0,
        created_ns=1,
    )
    write_adapter(folder, adapter, Probe(token_ids=(1, 2), adapter_logprobs=(-1.0,), base_logprobs=(0.0,)))


def _promotion(number: int) -> Entry:
    """Of one of eight agents, in turn."""
    agent, version = f"agent_{number % 8}", number // 8 + 1
    return Entry(
        sequence=number,
        at_ns=number,
        agent=agent,
        action="promote",
        policy=f"{agent}@{version}",
        previous=f"{agent}@{version - 1}" if version > 1 else "base",
        digest=f"{number:064x}",
        reason="0.41 → 0.47 on 120 tasks, interval 0.02 to 0.10",
    )


def _settle() -> None:
    sleep(2 * TICK_NS / 1e9)


def _ms(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return (perf_counter() - started) * 1e3


def lookups(workspace: Workspace, *, firsts: int, laters: int, changes: int) -> dict[str, list[float]]:
    """Milliseconds of asking for the policies, by what happened before."""
    first = [_ms(CurrentPolicies(workspace)) for _ in range(firsts)]
    policies = CurrentPolicies(workspace)
    policies()
    later = [_ms(policies) for _ in range(laters)]
    promoted, written = [], []
    before = "base"
    for number in range(1, changes + 1):
        after = f"late@{number}"
        Journal(workspace.journal).append("late", "promote", after, expected=before, digest="d" * 64, reason="better")
        _settle()
        promoted.append(_ms(policies))
        assert policies().agents["late"] == after
        before = after
        workspace.config_file.write_text(f"{PROJECT}# {number}\n")
        _settle()
        written.append(_ms(policies))
    return {"when opened": first, "each run": later, "after a promotion": promoted, "after an edit": written}


async def starts(policies: Callable[[], PolicyTable], runs: int) -> list[float]:
    """Milliseconds from `Runtime.run` to the first model call."""
    called: list[float] = []

    def answer(request: ModelRequest) -> str:
        called.append(perf_counter())
        assert request.policy == "worker@1"
        return write_answer("done")

    runtime = Runtime(CREW, model=ScriptedModel(answer), policies=policies)
    taken = []
    for _ in range(runs):
        started = perf_counter()
        outcome = await runtime.run("Go")
        assert outcome.status == "ok", outcome.error
        taken.append((called[-1] - started) * 1e3)
    return taken


def summarise(rows: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    print(f"{'ms':40} {'median':>9} {'p99':>9} {'worst':>9} {'times':>7}")
    summaries = {}
    for name, taken in rows.items():
        ordered = sorted(taken)
        shown = (median(ordered), ordered[len(ordered) * 99 // 100], ordered[-1])
        print(f"{name:40} " + " ".join(f"{ms:9.3f}" for ms in shown) + f" {len(taken):7}")
        keys = ("median_ms", "p99_ms", "max_ms")
        summaries[name] = {key: round(ms, 4) for key, ms in zip(keys, shown, strict=True)} | {"times": len(taken)}
    return summaries


def measure(folder: Path, *, weights: int, entries: int, times: int) -> dict[str, Any]:
    workspace = make_workspace(folder, weights=weights, entries=entries)
    asked = lookups(workspace, firsts=max(times // 100, 3), laters=times, changes=max(times // 100, 3))
    rows = {f"policies, {when}": taken for when, taken in asked.items()}
    table = CurrentPolicies(workspace)()
    for name, policies in (
        ("a table in memory", lambda: table),
        ("the workspace's policies", CurrentPolicies(workspace)),
    ):
        rows[f"to the first model call, {name}"] = asyncio.run(starts(policies, times))[3:]
    rows["one hash of the weights"] = [_ms(lambda: digest_files(workspace.adapters / "worker@1"))]
    return {"weights_bytes": weights, "journal_entries": entries, "rows": summarise(rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="16 MiB of weights and 1,000 entries, 100 runs not 2,000")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        if quick:
            values = measure(Path(folder), weights=GIB // 64, entries=1000, times=100)
        else:
            values = measure(Path(folder), weights=GIB, entries=10_000, times=2000)
    write_result("run_start", values, seed=None, quick=quick)


if __name__ == "__main__":
    main()
