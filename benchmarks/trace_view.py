"""Claim: a view of the record costs a run nothing measurable, whatever its endpoint does, and counts what it loses.

The same tasks run with a view whose endpoint, in a process of its own, is healthy, down, slow, silent or failing, in
changing order, and without one before and after: the slowdown is a run's time over the mean of those two.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, perf_counter_ns, sleep
from typing import Any, ClassVar

import httpx
from _record import write_result

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.tools.tool import tool
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.exchange.otlp import parse_protobuf
from journeyman.traces.exchange.view import View
from journeyman.traces.trace import Task

SEED = 0
MODEL_S = 0.1
"""Seconds that the scripted model takes for a reply."""
SLOW_S = 2.0
"""Seconds that the slow endpoint takes for an answer."""
ENDPOINTS = ("none", "healthy", "down", "slow", "silent", "500")
"""`none` is one more run without a view: how far its slowdown is from 1 is noise."""

PLACES = ("Mercury", "Venus", "Earth", "Mars")
PLAN = json.dumps(
    {
        "assignments": [
            {"worker": "lookup", "goal": "Which planets?"},
            {"worker": "lookup", "goal": "How many moons has {1}?", "each": 1},
        ]
    }
)


@tool
def facts(query: str) -> str:
    """Looks facts up."""
    return ", ".join(PLACES) if "planets" in query else f"fact about {query}: " + "moons and more moons, " * 40


CREW = Crew(
    name="planets",
    orchestrator=Agent(name="orchestrator", instructions="Plan. " * 60),
    workers=(Agent(name="lookup", instructions="Look up.", tools=("facts",), output="values", limits=Limits(turns=2)),),
    tools={"facts": facts},
)


class PacedModel(ScriptedModel):
    async def complete(self, request: ModelRequest) -> ModelReply:
        await asyncio.sleep(MODEL_S)
        return await super().complete(request)


def answers(request: ModelRequest) -> str:
    prompt = request.messages[-1].content
    if request.messages[0].content.startswith("Plan."):
        return PLAN
    if prompt.startswith("facts: "):
        return write_answer(list(PLACES) if "Mercury, Venus" in prompt else ["2"])
    return write_call("facts", {"query": prompt})


class Timed:
    """A sink in front of the view that takes the time of each append."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.ns: list[int] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        began = perf_counter_ns()
        self._view.append(span, sync=sync)
        self.ns.append(perf_counter_ns() - began)


class Counting(BaseHTTPRequestHandler):
    """Behaves as the first part of the path says; a GET tells how many spans were acknowledged under a path."""

    protocol_version = "HTTP/1.1"
    acknowledged: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        view, _, kind = self.path.partition("/v1/")
        behaviour = view.split("/")[1]
        sleep({"slow": SLOW_S, "silent": 60.0}.get(behaviour, 0.0))
        if behaviour == "silent":
            self.close_connection = True
        elif behaviour == "500":
            self._answer(500, b"")
        else:
            if kind == "traces":
                groups = parse_protobuf(body).resource_spans
                self.acknowledged[view] += sum(len(scope.spans) for group in groups for scope in group.scope_spans)
            self._answer(200, b"")

    def do_GET(self) -> None:
        self._answer(200, str(self.acknowledged[self.path]).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(told: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    server.daemon_threads = True
    told.send(server.server_port)
    server.serve_forever()


@contextmanager
def endpoint_process() -> Iterator[str]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{here.recv()}"
    process.terminate()
    process.join()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run_tasks(tasks: int, tracer: Tracer) -> float:
    """Seconds for all the tasks, begun together."""
    async with Runtime(CREW, model=PacedModel(answers), tracer=tracer, concurrency=256) as runtime:
        began = perf_counter()
        outcomes = await asyncio.gather(
            *(runtime.run(Task(id=f"t{number}", prompt="How many moons?")) for number in range(tasks))
        )
        took = perf_counter() - began
    assert all(outcome.status == "ok" for outcome in outcomes), outcomes[0]
    return took


def with_view(endpoint: str, address: str, tasks: int, folder: Path) -> dict[str, Any]:
    view = View(address)
    timed = Timed(view)
    seconds = asyncio.run(run_tasks(tasks, Tracer(SpanLog(folder), timed)))
    began = perf_counter()
    view.close()
    close_s = perf_counter() - began
    received = 0 if endpoint == "down" else int(httpx.get(address, trust_env=False).text)
    return {
        "seconds": seconds,
        "close_s": close_s,
        "spans": len(timed.ns),
        "sent": view.sent,
        "lost": view.lost,
        "received": received,
        "append_ns": timed.ns,
    }


def without_view(tasks: int, folder: Path) -> float:
    return asyncio.run(run_tasks(tasks, Tracer(SpanLog(folder))))


def summarised(endpoint: str, ratios: list[float], rounds: list[dict[str, Any]]) -> dict[str, Any]:
    low, _, high = quantiles(ratios, n=4)
    row: dict[str, Any] = {
        "endpoint": endpoint,
        "run_slowdown": round(median(ratios), 4),
        "run_slowdown_quartiles": [round(low, 4), round(high, 4)],
    }
    if not rounds:
        return row
    appends = [ns / 1e3 for one in rounds for ns in one["append_ns"]]
    cuts = quantiles(appends, n=100)
    counts = {key: sum(one[key] for one in rounds) for key in ("spans", "sent", "received", "lost")}
    return row | {
        "spans": counts["spans"],
        "spans_received": counts["received"],
        "spans_lost_counted": counts["lost"],
        "adds_up": all(one["sent"] == one["received"] and one["sent"] + one["lost"] == one["spans"] for one in rounds),
        "append_p50_us": round(cuts[49], 1),
        "append_p99_us": round(cuts[98], 1),
        "close_s": round(median(one["close_s"] for one in rounds), 3),
    }


def measure(rounds: int, tasks: int) -> list[dict[str, Any]]:
    order = random.Random(SEED)
    ratios: dict[str, list[float]] = {endpoint: [] for endpoint in ENDPOINTS}
    found: dict[str, list[dict[str, Any]]] = {endpoint: [] for endpoint in ENDPOINTS}
    down = f"http://127.0.0.1:{closed_port()}"
    with endpoint_process() as url, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # What is slow only once, imports and compiling the graph, is in no round.
        without_view(tasks, folder)
        with_view("healthy", f"{url}/healthy/first", tasks, folder)
        before = without_view(tasks, folder)
        for number in range(rounds):
            for endpoint in order.sample(ENDPOINTS, k=len(ENDPOINTS)):
                if endpoint == "none":
                    seconds = without_view(tasks, folder)
                else:
                    address = down if endpoint == "down" else f"{url}/{endpoint}/{number}"
                    found[endpoint].append(with_view(endpoint, address, tasks, folder))
                    seconds = found[endpoint][-1]["seconds"]
                after = without_view(tasks, folder)
                ratios[endpoint].append(seconds / ((before + after) / 2))
                before = after
    return [summarised(endpoint, ratios[endpoint], found[endpoint]) for endpoint in ENDPOINTS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 4 tasks instead of 12 of 10")
    quick = parser.parse_args().quick
    rounds, tasks = (2, 4) if quick else (12, 10)
    rows = measure(rounds, tasks)
    print(f"{'endpoint':9} {'slowdown':>8} {'spans':>6} {'received':>8} {'lost':>6} {'append P50/P99 us':>18}  close s")
    for row in rows:
        line = f"{row['endpoint']:9} {row['run_slowdown']:8.3f}"
        if "spans" in row:
            appends = f"{row['append_p50_us']:.1f}/{row['append_p99_us']:.1f}"
            line += f" {row['spans']:6} {row['spans_received']:8} {row['spans_lost_counted']:6} {appends:>18}"
            line += f" {row['close_s']:8.2f}"
        print(line)
    values = {"rounds": rounds, "tasks_a_round": tasks, "model_s": MODEL_S, "slow_s": SLOW_S, "endpoints": rows}
    write_result("trace_view", values, seed=SEED, quick=quick)


if __name__ == "__main__":
    main()
