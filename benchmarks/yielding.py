"""Claim: training beside a live server takes little from it, because it yields.

Clients run look-ups without a pause: alone, beside a training that yields to nobody, and beside one that yields as
`journeyman train` does by itself. Told for each: the requests' P50 and P99, the server's tokens a second, and the steps
that training made meanwhile.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
from _crews import terse
from _record import write_result
from _server import borrowed

from journeyman.agents.agent import Crew
from journeyman.agents.model import ModelReply, ModelRequest, ModelTable
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.traces.trace import Task
from journeyman.training.data.demonstrations import TEACHER, Demonstrated
from journeyman.training.data.mine import mine_sft
from journeyman.training.data.samples import write_samples
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.demo import fanoutqa
from journeyman.training.trainings.trainings import list_trainings
from journeyman.training.trainings.yielding import NICE

AGENT = "lookup"
PHASES: dict[str, int | None] = {"alone": None, "beside training": 0, "beside training that yields": NICE}
"""The training's niceness; None where nothing is trained."""


class Timed:
    """A model, and how long each of its replies took."""

    provider = "vllm"
    demonstrates = False

    def __init__(self, model: ChatVLLM) -> None:
        self._model = model
        self.seconds: list[float] = []
        self.tokens = 0

    async def complete(self, request: ModelRequest) -> ModelReply:
        began = perf_counter()
        reply = await self._model.complete(request)
        self.seconds.append(perf_counter() - began)
        self.tokens += reply.usage.output_tokens
        return reply

    async def aclose(self) -> None:
        await self._model.aclose()


def rows(workspace: Workspace, path: Path) -> None:
    """What the teacher does on a dozen train tasks, as a dataset."""
    crew = fanoutqa.lookup_crew("train")
    teacher = ModelTable(Demonstrated(crew, fanoutqa.demonstrations("train")))
    everywhere = dict.fromkeys(("orchestrator", AGENT), TEACHER)
    with Recording(workspace) as recording:
        runtime = Runtime(crew, model=teacher, tracer=recording.tracer, policies=everywhere)
        for task in fanoutqa.tasks("train")[:12]:
            runtime.run_sync(task)
    write_samples(mine_sft(Source(workspace.store, AGENT, MineConfig())).samples, path)


@contextmanager
def training(folder: Path, data: Path, nice: int | None, batch: int) -> Iterator[Workspace]:
    """A workspace in which a process trains, once it has made its first step."""
    workspace = Workspace(folder / ".journeyman").create()
    if nice is None:
        yield workspace
        return
    workspace.config_file.write_text(f"[training]\nnice = {nice}\n")
    sets = ["--set", "trl.max_steps=100000", "--set", f"trl.per_device_train_batch_size={batch}"]
    told = ["train", "--agent", AGENT, "--data", str(data), *sets, "-C", str(workspace.root)]
    journeyman = [sys.executable, "-c", "from journeyman.runtime.cli import main; main()"]
    with (folder / "train.log").open("w+") as log, subprocess.Popen([*journeyman, *told], stderr=log) as process:
        try:
            while steps(workspace) == 0:
                if process.poll() is not None:
                    raise SystemExit((folder / "train.log").read_text())
                sleep(0.2)
            yield workspace
        finally:
            process.send_signal(signal.SIGKILL)


def steps(workspace: Workspace) -> int:
    return max((one.step for one in list_trainings(workspace)), default=0)


async def served(url: str, crew: Crew, clients: int, seconds: float) -> dict[str, float]:
    """What the clients had of the server in so many seconds."""
    goals, until = list(fanoutqa.findings("test")), perf_counter() + seconds
    model = Timed(ChatVLLM(base_url=url, retries=0))
    runtime = Runtime(crew, model=model)

    async def client(number: int) -> None:
        turn = number
        while perf_counter() < until:
            await runtime.run(Task(id=f"{number}-{turn}", prompt=goals[turn % len(goals)]))
            turn += clients

    began = perf_counter()
    await asyncio.gather(*map(client, range(clients)))
    took = perf_counter() - began
    await model.aclose()
    p50, p99 = np.percentile(model.seconds, [50, 99])
    return {"requests": len(model.seconds), "p50_s": float(p50), "p99_s": float(p99), "tokens_s": model.tokens / took}


def measure(url: str, folder: Path, *, clients: int, tokens: int, seconds: float, batch: int) -> list[dict[str, Any]]:
    data = folder / "rows.jsonl"
    rows(Workspace(folder / "taught").create(), data)
    planned = terse(fanoutqa.lookup_crew("test"), tokens)
    crew = Crew(name="look-ups", orchestrator=None, workers=planned.workers, tools=planned.tools)
    asyncio.run(served(url, crew, clients, 1.0))  # The first requests of all pay for what later ones reuse.
    phases = []
    print(f"{'':28} {'requests':>8} {'P50 s':>6} {'P99 s':>6} {'tokens/s':>8} {'steps':>6}")
    for name, nice in PHASES.items():
        with training(folder / name.replace(" ", "-"), data, nice, batch) as workspace:
            before = steps(workspace)
            figures = asyncio.run(served(url, crew, clients, seconds))
            made = steps(workspace) - before
        phases.append({"name": name, "nice": nice, **figures, "steps": made})
        row = phases[-1]
        print(
            f"{name:28} {row['requests']:8} {row['p50_s']:6.2f} {row['p99_s']:6.2f} {row['tokens_s']:8.1f} {made:6}",
            flush=True,
        )
    return phases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seconds of each, with short replies")
    parser.add_argument("-C", "--workspace", type=Path, default=Path(".journeyman"))
    parser.add_argument("--attach", metavar="URL", help="a server that runs already")
    arguments = parser.parse_args()
    clients, tokens, seconds, batch = (2, 8, 2.0, 1) if arguments.quick else (8, 96, 60.0, 8)
    with tempfile.TemporaryDirectory() as folder, borrowed(Workspace(arguments.workspace), arguments.attach) as server:
        url = server().url
        phases = measure(url, Path(folder), clients=clients, tokens=tokens, seconds=seconds, batch=batch)
    alone = phases[0]["tokens_s"]
    kept = {one["name"]: round(one["tokens_s"] / alone, 3) for one in phases[1:]}
    print(", ".join(f"{name}: {share:.0%} of the tokens" for name, share in kept.items()))
    write_result("yielding", {"phases": phases, "kept": kept}, seed=0, quick=arguments.quick)


if __name__ == "__main__":
    main()
