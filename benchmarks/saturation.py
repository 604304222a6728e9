"""Claim: the runtime keeps vLLM as busy as vLLM's own benchmark client does.

Tasks of the demo's task set go through its crew, 1 to 64 at once, untrained. What each level sent is sent again by
vLLM's own client: the same messages under the same schemas, as many tokens for each, as many requests in flight as the
crew had on average (between two whole numbers, both are measured). Its requests carry a salt, so that the server's
prefix cache holds nothing of the crew's; no two levels of the crew share a task.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from math import ceil, floor
from pathlib import Path
from time import perf_counter
from typing import Any

from _record import write_result
from _server import borrowed

from journeyman.agents.agent import Crew
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.models.chat_wire import request_body
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.trace import Outcome, Task
from journeyman.training.demo import fanoutqa

LEVELS = (1, 2, 4, 8, 16, 32, 64)
"""Tasks at once."""
FEW = 8
"""Below so many requests in flight one more or less makes a difference."""
HERE = Path(__file__).parent


class Watched:
    """A model, and what went through it."""

    def __init__(self, model: ChatVLLM) -> None:
        self._model = model
        self.calls: list[tuple[ModelRequest, ModelReply]] = []
        self.busy_s = 0.0
        """Seconds of all calls, added up."""

    provider = "vllm"
    demonstrates = False

    async def complete(self, request: ModelRequest) -> ModelReply:
        began = perf_counter()
        try:
            reply = await self._model.complete(request)
        finally:
            self.busy_s += perf_counter() - began
        self.calls.append((request, reply))
        return reply

    async def aclose(self) -> None:
        await self._model.aclose()


async def run_tasks(
    url: str, crew: Crew, tasks: Sequence[Task], at_once: int, log: Path
) -> tuple[Watched, float, list[Outcome]]:
    model = Watched(ChatVLLM(base_url=url, retries=0))
    turns = asyncio.Semaphore(at_once)
    async with Runtime(crew, model=model, tracer=Tracer(SpanLog(log)), concurrency=1024) as runtime:

        async def run(task: Task) -> Outcome:
            async with turns:
                return await runtime.run(task)

        began = perf_counter()
        outcomes = await asyncio.gather(*map(run, tasks))
        return model, perf_counter() - began, outcomes


class Client:
    """vLLM's benchmark client, in a process that imports it once."""

    def __init__(self, folder: Path) -> None:
        self._requests = folder / "requests.jsonl"
        self._log = (folder / "client.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "_bench_client.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def replay(self, url: str, calls: Sequence[tuple[ModelRequest, ModelReply]], in_flight: int) -> dict[str, Any]:
        """The client's account of sending the same requests again."""
        assert self._process.stdin is not None and self._process.stdout is not None
        salt = f"replay-{perf_counter()}"
        rows = [
            {"body": request_body(request) | {"cache_salt": salt}, "tokens": reply.usage.output_tokens}
            for request, reply in calls
        ]
        self._requests.write_text("".join(json.dumps(row) + "\n" for row in rows))
        order = {"url": url, "requests": str(self._requests), "in_flight": in_flight}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(f"vLLM's client ended: {self._log.read()[-2000:]}")
        account: dict[str, Any] = json.loads(line)
        assert account["failed"] == 0, account
        return account

    def close(self) -> None:
        self._process.kill()  # It has nothing left to do, and what it imported takes seconds to come to an end.
        self._process.communicate()
        self._log.close()


def compare(url: str, crew: Crew, tasks: Sequence[Task], at_once: int, client: Client, folder: Path) -> dict[str, Any]:
    model, seconds, outcomes = asyncio.run(run_tasks(url, crew, tasks, at_once, folder / f"log-{at_once}"))
    usage = [reply.usage for _, reply in model.calls]
    generated = sum(one.output_tokens for one in usage)
    in_flight = model.busy_s / seconds
    around = sorted({max(1, floor(in_flight)), ceil(in_flight)} if in_flight < FEW else {round(in_flight)})
    accounts = [client.replay(url, model.calls, number) for number in around]
    theirs = between(in_flight, around, [account["output_throughput"] for account in accounts])
    row: dict[str, Any] = {
        "concurrency": at_once,
        "tasks": len(tasks),
        "calls": len(model.calls),
        "failed_tasks": sum(outcome.status == "failed" for outcome in outcomes),
        "in_flight": round(in_flight, 2),
        "generated_tokens": generated,
        "replayed_tokens": [account["total_output_tokens"] for account in accounts],
        "cache_hit_rate": round(sum(one.cached_tokens for one in usage) / sum(one.input_tokens for one in usage), 4),
        "ours_tok_s": round(generated / seconds, 2),
        "vllm_tok_s": round(theirs, 2),
    }
    print(
        f"{at_once:11} {row['in_flight']:9.1f} {row['calls']:6} {row['ours_tok_s']:11.1f} {row['vllm_tok_s']:11.1f} "
        f"{row['ours_tok_s'] / row['vllm_tok_s']:6.2f} {row['cache_hit_rate']:11.0%}",
        flush=True,
    )
    return row


def between(value: float, numbers: Sequence[int], rates: Sequence[float]) -> float:
    """The rate at `value`, on the line between what was measured at the whole numbers around it."""
    if len(numbers) == 1:
        return rates[0]
    share = (value - numbers[0]) / (numbers[1] - numbers[0])
    return rates[0] + share * (rates[1] - rates[0])


def shares(levels: Sequence[int]) -> Iterator[tuple[int, list[Task]]]:
    """For each level tasks of its own, twelve or twice as many as run at once; the last has what is left (116)."""
    tasks = iter([*fanoutqa.tasks("train"), *fanoutqa.tasks("gate"), *fanoutqa.tasks("test")])
    for level in levels:
        yield level, list(islice(tasks, max(12, 2 * level)))


def measure(
    server: Callable[[], ServerState], crew: Crew, levels: Iterable[tuple[int, Sequence[Task]]]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, closing(Client(Path(name))) as client:
        url = server().url
        print("concurrency in flight  calls  ours tok/s  vLLM tok/s  ratio  prefix hits")
        asyncio.run(run_tasks(url, crew, fanoutqa.tasks("test")[-1:], 1, Path(name) / "warm-up"))
        rows = [compare(url, crew, tasks, level, client, Path(name)) for level, tasks in levels]
    return {key: [row[key] for row in rows] for key in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one task of a single agent")
    parser.add_argument("-C", "--workspace", type=Path, default=Path(".journeyman"))
    parser.add_argument("--attach", metavar="URL", help="a server that runs already")
    arguments = parser.parse_args()
    with borrowed(Workspace(arguments.workspace), arguments.attach) as server:
        if arguments.quick:
            values = measure(server, fanoutqa.single_agent_crew("test"), [(1, fanoutqa.tasks("test")[:1])])
        else:
            values = measure(server, fanoutqa.lookup_crew("test"), shares(LEVELS))
    values["ratio"] = [
        round(ours / theirs, 3) for ours, theirs in zip(values["ours_tok_s"], values["vllm_tok_s"], strict=True)
    ]
    write_result("saturation", values, seed=0, quick=arguments.quick)


if __name__ == "__main__":
    main()
