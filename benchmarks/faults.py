"""Claim: whatever fails, a run ends in a typed outcome, and nothing that was done well is lost or done twice.

Drawn plans meet drawn faults in three rounds: in tools and in a model within the process; in a chat server that answers
wrong, late or not at all; in a chat server that is killed and started again meanwhile. Half of the workers call tools
in the model's own template, and half of the runs have their replies streamed.
"""

import argparse
import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import cache
from itertools import groupby
from time import perf_counter

from _chat_server import ChatServer
from _fault_cases import Case, draw_case
from _fault_counts import Counts, Seen, Spans
from _fault_crew import SPARE, FaultyModel, Tools
from _faults import (
    EFFECT_FAULTS,
    HTTP_FAULTS,
    MODEL_FAULTS,
    NATIVE_FAULTS,
    REPLY_FAULTS,
    STREAM_FAULTS,
    TOOL_FAULTS,
)
from _record import write_result

from journeyman.agents.model import Model, ModelTable
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.run.events import Token
from journeyman.runtime.runtime import Runtime
from journeyman.traces.trace import Task

SEED = 11
AT_ONCE = 16
SHOWN = 5
"""Examples that are printed of each kind of failure."""
LATE_S = 120.0
"""A run that has not ended by then hangs."""


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
    told = 0
    async with aclosing(runtime.stream(Task(id=case.name, prompt=case.prompt), tokens=case.tokens)) as events:
        async for event in events:
            seen.take(event)
            told += isinstance(event, Token)
            if told == case.leaves_after:
                seen.left = True
                return


async def run_all(cases: Sequence[Case], model: Model, counts: Counts) -> None:
    """Runs the cases, several at once on one runtime for each crew, and adds up what came of them."""
    tools, spans = Tools(), Spans()
    models = ModelTable(model, {SPARE: model})
    places, before = asyncio.Semaphore(AT_ONCE), len(asyncio.all_tasks())

    @cache
    def runtime(crew: str) -> Runtime:
        return Runtime(tools.crew(crew), model=models, tracer=spans)

    async def one(case: Case) -> None:
        async with places:
            counts.add(case, await watch(runtime(case.crew), case), spans)

    await asyncio.gather(*(one(case) for case in cases))
    await asyncio.sleep(1)  # A tool that writes after it was given up has done so by then.
    tools.release()
    await model.aclose()
    counts.add_all(tools.effects, spans)
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
    everywhere = (*TOOL_FAULTS, *EFFECT_FAULTS, *REPLY_FAULTS, *NATIVE_FAULTS)
    within = (*everywhere, *MODEL_FAULTS)
    await run_all(draw(0, 120 if quick else 2500, within, rate=0.3), FaultyModel(), counts)
    _say("in the process", counts)
    with ChatServer() as server:
        over_http = (*everywhere, *HTTP_FAULTS, *HTTP_FAULTS, *STREAM_FAULTS, *STREAM_FAULTS)
        cases = draw(10_000, 140 if quick else 1800, over_http, rate=0.3)
        await run_all(cases, ChatVLLM(base_url=server.url, retry_wait_s=0.02), counts)
        _say("over HTTP", counts)
        async with killing(server, random.Random(SEED)) as away:
            cases = draw(20_000, 80 if quick else 1200, HTTP_FAULTS, rate=0.0)
            await run_all(cases, ChatVLLM(base_url=server.url, retries=12, retry_wait_s=0.1), counts)
        counts.faults += len(away)
        counts.by_fault["server_killed"] += len(away)
        _say("server killed", counts)
    return counts


def _say(what: str, counts: Counts) -> None:
    print(f"{what:16} {counts.runs:6} runs, {counts.faults:6} faults so far", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="340 runs instead of 5,500")
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
