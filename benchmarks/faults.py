"""Claim: whatever fails, a run ends in a typed outcome, and nothing that was done well is lost or done twice.

Drawn plans meet drawn faults in three rounds: in tools and in a model within the process; in a chat server that answers
wrong, late or not at all; in a chat server that is killed and started again meanwhile.
"""

import argparse
import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from time import perf_counter
from typing import Any

from _chat_server import ChatServer
from _fault_crew import FaultyModel, Tools
from _faults import (
    EFFECT_FAULTS,
    HTTP_FAULTS,
    MODEL_FAULTS,
    REPLY_FAULTS,
    TOOL_FAULTS,
    Case,
    draw_case,
    fact_of,
    fault_of,
    step_of,
)
from _record import write_result

from journeyman.agents.model import Model
from journeyman.agents.plan import Plan, Report
from journeyman.runtime.events import Ended, PlanMade, ReportFiled, WorkerStarted
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.vllm import ChatVLLM
from journeyman.traces.log import SpanRecord
from journeyman.traces.trace import Outcome, Task
from journeyman.traces.tracer import Span, Tracer

SEED = 11
AT_ONCE = 16
SHOWN = 5
"""Examples that are printed of each kind of failure."""
LATE_S = 120.0
"""A run that has not ended by then hangs."""


class Spans(Tracer):
    """Counts the spans that were begun and have not come to the record."""

    def __init__(self) -> None:
        super().__init__(self)
        self.open = 0

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.open -= 1

    def span(self, name: str, **options: Any) -> Span:
        self.open += 1
        return super().span(name, **options)


@dataclass
class Seen:
    """What one run told of itself."""

    plan: Plan | None = None
    started: list[str] = field(default_factory=list)
    """Steps that a worker began with."""
    reports: list[Report] = field(default_factory=list)
    outcome: Outcome | None = None
    raised: str | None = None

    @property
    def found(self) -> set[str]:
        return {value for report in self.reports for value in report.values}

    def dropped(self) -> set[str]:
        """Facts of assignments that nothing waits for, which are not in the answer."""
        leaves = None if self.plan is None else {leaf.id for leaf in self.plan.leaves}
        answer = "" if self.outcome is None else self.outcome.answer
        ended = [one for one in self.reports if leaves is None or _stands_for(one) in leaves]
        return {value for report in ended for value in report.values if value not in answer}


@dataclass
class Counts:
    """The figures of the result; each but the first two ought to be 0."""

    runs: int = 0
    faults: int = 0
    """Steps and plans that were begun and had a fault, each counted once however often it came."""
    untyped_outcomes: int = 0
    sibling_work_lost: int = 0
    error_text_in_answers: int = 0
    duplicate_side_effects: int = 0
    open_spans: int = 0
    tasks_left_behind: int = 0
    by_fault: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    recovered: int = 0
    """Steps with a fault whose fact was found all the same."""
    wrong: list[str] = field(default_factory=list)

    def add(self, case: Case, seen: Seen) -> None:
        self.runs += 1
        faults = _met(case, seen)
        self.faults += len(faults)
        self.by_fault.update(faults)
        faulty = {fact_of(step) for step in seen.started if fault_of(step)[0]}
        self.recovered += len(faulty & seen.found)
        if seen.outcome is None:
            self.statuses["cancelled by its caller" if seen.raised == "CancelledError" else "none"] += 1
            typed = case.cancel_s is not None and seen.raised == "CancelledError"
            self._wrong("untyped_outcomes", 0 if typed else 1, case, seen.raised or "no outcome")
            return
        self.statuses[seen.outcome.status] += 1
        lost = (case.healthy - seen.found) | seen.dropped()
        self._wrong("sibling_work_lost", len(lost), case, seen.outcome.error or "")
        self._wrong("error_text_in_answers", 0 if _clean(case, seen.outcome.answer) else 1, case, seen.outcome.answer)

    def _wrong(self, key: str, count: int, case: Case, detail: str) -> None:
        setattr(self, key, getattr(self, key) + count)
        if count:
            self.wrong.append(f"{key} {detail[:300]} <- {case.prompt[:300]!r}")


def _stands_for(report: Report) -> str:
    """The number of the assignment in whose place its output is used."""
    return (report.assignment.replaces or report.assignment.id).partition(".")[0]


def _met(case: Case, seen: Seen) -> list[str]:
    """Faults of what was begun."""
    named = [fault_of(step)[0] for step in seen.started]
    plan = fault_of(case.prompt.split(" {")[0])[0] if case.planned else ""
    return [
        fault for fault in (*named, plan and f"plan_{plan}", "run_cancelled" * (case.cancel_s is not None)) if fault
    ]


def _clean(case: Case, answer: str) -> bool:
    """Whether each part of the answer is a fact of this case, or several, after the value that it is for."""
    values = {step.partition("/")[2] for step in case.steps}
    for part in answer.split("; ") if answer else []:
        value, _, facts = part.rpartition(": ")
        if value not in {"", *values} or not case.facts.issuperset(facts.split(", ")):
            return False
    return True


async def watch(runtime: Runtime, case: Case) -> Seen:
    seen = Seen()
    try:
        async with asyncio.timeout(LATE_S):
            await _listen(runtime, case, seen)
    except asyncio.CancelledError:
        seen.raised = "CancelledError"
    except BaseException as error:
        seen.raised = repr(error)
    return seen


async def _listen(runtime: Runtime, case: Case, seen: Seen) -> None:
    listening = asyncio.create_task(_follow(runtime, case, seen))
    if case.cancel_s is not None:
        asyncio.get_running_loop().call_later(case.cancel_s, listening.cancel)
    await listening


async def _follow(runtime: Runtime, case: Case, seen: Seen) -> None:
    async for event in runtime.stream(Task(id=case.name, prompt=case.prompt)):
        match event:
            case PlanMade():
                seen.plan = event.plan
            case WorkerStarted() if event.assignment.goal.startswith("Find"):
                seen.started.append(step_of(event.assignment.goal))
            case ReportFiled():
                seen.reports.append(event.report)
            case Ended():
                seen.outcome = event.outcome


async def run_all(cases: Sequence[Case], model: Model, counts: Counts) -> None:
    """Runs the cases, several at once on one runtime for each crew, and adds up what came of them."""
    tools, spans = Tools(), Spans()
    planned, single = (Runtime(crew, model=model, tracer=spans) for crew in tools.crews())
    places, before = asyncio.Semaphore(AT_ONCE), len(asyncio.all_tasks())

    async def one(case: Case) -> None:
        async with places:
            counts.add(case, await watch(planned if case.planned else single, case))

    await asyncio.gather(*(one(case) for case in cases))
    await asyncio.sleep(1)  # A tool that writes after it was given up has done so by then.
    tools.release()
    await model.aclose()
    twice = {step: times for step, times in tools.effects.items() if times > 1}
    counts.duplicate_side_effects += sum(twice.values()) - len(twice)
    counts.wrong += [f"duplicate_side_effects {step}: {times} times" for step, times in twice.items()]
    counts.open_spans += spans.open
    counts.tasks_left_behind += len(asyncio.all_tasks()) - before


def draw(first: int, count: int, faults: Sequence[str], rate: float) -> list[Case]:
    return [draw_case(number, SEED, faults, rate=rate) for number in range(first, first + count)]


@asynccontextmanager
async def killing(server: ChatServer, chance: random.Random) -> AsyncIterator[list[float]]:
    """Kills the server again and again, and starts it a moment later; gives the seconds that it was away."""
    away: list[float] = []

    async def again() -> None:
        while True:
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            server.kill()
            killed = perf_counter()
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            server.start()
            await asyncio.to_thread(server.wait)
            away.append(perf_counter() - killed)

    supervisor = asyncio.create_task(again())
    try:
        yield away
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)


async def measure(quick: bool) -> Counts:
    counts = Counts()
    within = (*TOOL_FAULTS, *EFFECT_FAULTS, *REPLY_FAULTS, *MODEL_FAULTS)
    await run_all(draw(0, 120 if quick else 3000, within, rate=0.3), FaultyModel(), counts)
    _say("in the process", counts)
    with ChatServer() as server:
        over_http = (*HTTP_FAULTS, *HTTP_FAULTS, *TOOL_FAULTS, *EFFECT_FAULTS, *REPLY_FAULTS)
        cases = draw(10_000, 80 if quick else 1500, over_http, rate=0.3)
        await run_all(cases, ChatVLLM(base_url=server.url, retry_wait_s=0.02), counts)
        _say("over HTTP", counts)
        async with killing(server, random.Random(SEED)) as away:
            cases = draw(20_000, 100 if quick else 2000, HTTP_FAULTS, rate=0.0)
            await run_all(cases, ChatVLLM(base_url=server.url, retries=12, retry_wait_s=0.1), counts)
        counts.faults += len(away)
        counts.by_fault["server_killed"] += len(away)
        _say("server killed", counts)
    return counts


def _say(what: str, counts: Counts) -> None:
    print(f"{what:16} {counts.runs:6} runs, {counts.faults:6} faults so far", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="300 runs instead of 6,500")
    quick = parser.parse_args().quick
    started = perf_counter()
    counts = asyncio.run(measure(quick))
    values = {name: value for name, value in vars(counts).items() if name != "wrong"}
    values |= {"by_fault": dict(counts.by_fault.most_common()), "statuses": dict(counts.statuses.most_common())}
    for name, value in values.items():
        print(f"{name:24} {value}")
    for key, kind in groupby(sorted(counts.wrong), key=lambda line: line.split()[0]):
        shown = list(kind)
        print(f"{key}, {len(shown)} times:", *shown[:SHOWN], sep="\n  ")
    write_result("faults", {**values, "seconds": round(perf_counter() - started, 1)}, seed=SEED, quick=quick)
    if counts.wrong or counts.open_spans or counts.tasks_left_behind:
        raise SystemExit("not everything held")


if __name__ == "__main__":
    main()
