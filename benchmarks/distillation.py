"""Claim: one pass of a distilled agent keeps what a costly policy achieves, at a fraction of its tokens.

The agent answers the sub-questions of FanOutQA by look-up. The costly policy is the base model with worked examples in
its prompt, asked eight times, of which a verifier takes the best. Its accepted runs on train questions teach an adapter
without examples (`teach` and `sft`), which then samples replies itself and learns from the base model with the examples
in sight (`distill`). Both adapters answer held-out questions once, greedily. The `sft` row is the claim's: it was named
before anything was measured. What is finished is kept in the workspace, and the same call goes on.
"""

import argparse
import json
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from _crews import terse
from _record import write_result
from _server import borrowed

from journeyman.agents.agent import Crew
from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.serving.backend import Backend, open_backend
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.capture.energy import read_counters
from journeyman.traces.files import write_whole
from journeyman.traces.trace import Task
from journeyman.training.data.choosing.choose import ChooseConfig, Choosing
from journeyman.training.data.datasets.card import Provenance
from journeyman.training.data.datasets.shelf import KnownDataset, open_dataset
from journeyman.training.data.mine import mine_to_file
from journeyman.training.data.samples import SFTSample, dataset_file_name, read_samples
from journeyman.training.data.sft import SFTMining
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.demo import fanoutqa
from journeyman.training.demo.decompositions import WORKER
from journeyman.training.demo.demo import SCORER
from journeyman.training.evaluation.bench import Bench, with_policies
from journeyman.training.evaluation.evaluate import Episode
from journeyman.training.improve.teach import TeachConfig, Teaching
from journeyman.training.improve.teachers import Teachers
from journeyman.training.methods.job import load_recipe, train_adapter

RESAMPLES = 10_000


class Size(NamedTuple):
    learned: int
    """Train questions."""
    held_out: int
    best_of: int
    min_score: float
    """Of a run that is learned from."""
    sft_steps: int | None
    """None: as many as the plan says."""
    distill_steps: int
    tokens: int | None
    """Longest reply; None: the agent's own limit."""


FULL = Size(200, 150, 8, 1.0, None, 30, None)
QUICK = Size(2, 1, 2, 0.0, 1, 1, 8)


class Costs(NamedTuple):
    score: float
    tokens: int
    """Read and generated."""


class Distillation:
    """The costly policy, its students, and what each is worth on held-out questions."""

    def __init__(self, workspace: Workspace, size: Size, server: Callable[[], ServerState]) -> None:
        self._workspace = workspace
        self._size = size
        self._server = server
        self._base_model = Path(pull_model(workspace.config.server.model))
        self._prices = workspace.root / "prices.json"
        self.price: dict[str, dict[str, float | None]] = (
            json.loads(self._prices.read_text(encoding="utf-8")) if self._prices.exists() else {}
        )
        """By stage, the seconds and watt-hours that it took, in earlier sittings too."""

    def costly(self) -> dict[str, Costs]:
        """By held-out question, the best of several runs and the tokens of them all."""
        runs = [
            self._episodes(BASE, seed=seed, temperature=1.0, purpose="costly") for seed in range(self._size.best_of)
        ]
        return {
            of_task[0].task_id: Costs(max(one.score for one in of_task), sum(map(_tokens, of_task)))
            for of_task in zip(*runs, strict=True)
        }

    def once(self, policy: str) -> dict[str, Costs]:
        """By held-out question, one greedy run."""
        episodes = self._episodes(policy, seed=0, temperature=0.0, purpose=policy)
        return {one.task_id: Costs(one.score, _tokens(one)) for one in episodes}

    def students(self) -> dict[str, Adapter]:
        dataset = self._mined(self._taught())
        short = {} if self._size.sft_steps is None else {"trl.max_steps": self._size.sft_steps}
        first = self._trained("sft", dataset, BASE, short)
        settings = {
            "teacher.crew": str(self._crew_file()),
            "trl.max_steps": self._size.distill_steps,
            "trl.learning_rate": 1e-4,
            **({} if self._size.tokens is None else {"trl.max_completion_length": self._size.tokens}),
        }
        return {"sft": first, "distill": self._trained("distill", dataset, first.policy, settings)}

    def _taught(self) -> Collection[str]:
        size, crew, tasks = self._size, self._crew("train"), questions("train", self._size.learned)
        teachers = Teachers(crew=crew, policies=PolicyTable(agents={WORKER: BASE}), tasks=tasks)
        config = TeachConfig(scorer=SCORER, best_of=size.best_of, min_score=size.min_score, concurrency=32)
        self._server()
        with self._priced("teach"):
            teaching = Teaching(
                self._workspace, teachers, config, source="fanoutqa goals", conditions=[_written(crew), size.tokens]
            )
            return teaching.teach().accepted.values()

    def _mined(self, ids: Collection[str]) -> KnownDataset:
        source = Source(self._workspace.store, WORKER, MineConfig(), ids=ids)
        made = Provenance.now(self._workspace, {"agent": WORKER, "kind": "sft"})
        file = mine_to_file(
            SFTMining(source),
            self._workspace.datasets,
            lambda digest: dataset_file_name(WORKER, digest),
            Choosing(source, ChooseConfig()),
            made,
        )
        if file is None:
            raise SystemExit("the costly policy did nothing that is good enough to learn from")
        return open_dataset(self._workspace, file.path)

    def _trained(self, recipe: str, dataset: KnownDataset, start: str, settings: dict[str, Any]) -> Adapter:
        with self._priced(recipe):
            return train_adapter(
                read_samples(dataset.path, SFTSample),
                agent=WORKER,
                recipe=load_recipe(recipe, settings),
                base_model=self._base_model,
                workspace=self._workspace,
                start=start,
                dataset=dataset,
                on_step=lambda step: print(f"   step {step.number} of {step.steps}: {step.loss:.3f}", flush=True),
            )

    def _episodes(self, policy: str, *, seed: int, temperature: float, purpose: str) -> list[Episode]:
        crew, tasks = self._crew("test"), questions("test", self._size.held_out)
        with self._priced(f"held out, {purpose}"):
            bench = Bench(
                self._workspace,
                crew,
                tasks,
                SCORER,
                backend=self._backend,
                conditions=[_written(crew), temperature],
                source="fanoutqa goals",
                concurrency=32,
                seed=seed,
                temperature=temperature,
            )
            named = {} if policy == BASE else {WORKER: policy}
            return bench.episodes(with_policies(self._workspace, PolicyTable(), named))

    def _backend(self) -> Backend:
        self._server()
        return open_backend(self._workspace)

    def _crew(self, split: fanoutqa.Split) -> Crew:
        crew = fanoutqa.single_agent_crew(split)
        return crew if self._size.tokens is None else terse(crew, self._size.tokens)

    def _crew_file(self) -> Path:
        """What the teacher of `distill` is shown: the agent's instructions and its examples."""
        [worker] = self._crew("train").workers
        examples = [
            f"[[workers.{WORKER}.examples]]\nuser = {json.dumps(one.user)}\nassistant = {json.dumps(one.assistant)}\n"
            for one in worker.examples
        ]
        head = f'name = "teacher"\n[workers.{WORKER}]\ninstructions = {json.dumps(worker.instructions)}\n'
        path = self._workspace.root / "teacher.toml"
        path.write_text(head + "".join(examples), encoding="utf-8")
        return path

    @contextmanager
    def _priced(self, stage: str) -> Iterator[None]:
        print(f"-- {stage}", flush=True)
        before, began = read_counters(), monotonic()
        yield
        after, seconds = read_counters(), monotonic() - began
        hours = None if before is None or after is None else (after.joules - before.joules) / 3600
        known = self.price.get(stage, {"seconds": 0.0, "watt_hours": 0.0})
        energy = known["watt_hours"]
        self.price[stage] = {
            "seconds": round((known["seconds"] or 0.0) + seconds, 1),
            "watt_hours": None if hours is None or energy is None else round(energy + hours, 3),
        }
        write_whole(self._prices, json.dumps(self.price))


def questions(split: fanoutqa.Split, most: int) -> tuple[Task, ...]:
    """Goals whose answer is in sight, chosen by a hash of their text."""
    known = sorted(fanoutqa.findings(split).items(), key=lambda goal: sha256(goal[0].encode()).digest())
    tasks = [
        Task(id=sha256(goal.encode()).hexdigest()[:12], prompt=goal, reference=list(found[0].values), family="goals")
        for goal, found in known
        if len(found) == 1 and found[0].values
    ]
    return tuple(tasks[:most])


def _tokens(run: Episode) -> int:
    return run.input_tokens + run.output_tokens


def _written(crew: Crew) -> str:
    return crew.model_dump_json(exclude={"tools"})


def compared(costly: dict[str, Costs], student: dict[str, Costs]) -> dict[str, Any]:
    """The share of the costly policy's success that is kept, with its 95% interval (bootstrap over questions), and the
    share of its tokens."""
    ours = np.array([student[name].score for name in costly])
    theirs = np.array([one.score for one in costly.values()])
    drawn = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    totals = theirs[drawn].sum(axis=1)
    shares = ours[drawn].sum(axis=1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(shares, [0.025, 0.975]) if len(shares) else (0.0, 0.0)
    tokens = sum(one.tokens for one in costly.values())
    return {
        "score": round(float(ours.mean()), 4),
        "kept": round(float(ours.sum() / theirs.sum()), 4) if theirs.sum() else 0.0,
        "kept_low": round(float(low), 4),
        "kept_high": round(float(high), 4),
        "tokens_share": round(sum(student[name].tokens for name in costly) / tokens, 4),
    }


def measure(workspace: Workspace, size: Size, server: Callable[[], ServerState]) -> dict[str, Any]:
    study = Distillation(workspace, size, server)
    with workspace.create().lock("distillation"):
        students = study.students()
        costly = study.costly()
        rows = {name: compared(costly, study.once(adapter.policy)) for name, adapter in students.items()}
        plain = compared(costly, study.once(BASE))
    named = {key: rows["sft"][key] for key in ("kept", "kept_low", "kept_high", "tokens_share")}
    scores = [one.score for one in costly.values()]
    return {
        **named,
        "costly": {"score": round(sum(scores) / len(scores), 4), "best_of": size.best_of},
        "ways": [{"name": name, **row} for name, row in rows.items()],
        "base_once": plain,
        "rows": {name: adapter.rows for name, adapter in students.items()},
        "prices": study.price,
        "questions": len(costly),
    }


def show(values: dict[str, Any]) -> None:
    print(f"\ncostly: {values['costly']['score']:.3f} on {values['questions']} held-out questions")
    for row in [*values["ways"], {"name": "base, once", **values["base_once"]}]:
        interval = f"{row['kept_low']:.2f} .. {row['kept_high']:.2f}"
        print(
            f"{row['name']:11} {row['score']:.3f}: keeps {row['kept']:.2f} ({interval}) "
            f"at {row['tokens_share']:.1%} of the tokens"
        )
    for stage, price in values["prices"].items():
        energy = "" if price["watt_hours"] is None else f", {price['watt_hours']:.2f} Wh"
        print(f"{stage:20} {price['seconds']:.0f} s{energy}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two questions, one step of each training")
    parser.add_argument("-C", "--workspace", type=Path, default=Path(".journeyman/distillation/.journeyman"))
    parser.add_argument("--attach", metavar="URL", help="a server that runs already, without adapters")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        workspace = Workspace(Path(folder) / "workspace" if options.quick else options.workspace).create()
        if options.quick:
            workspace.config_file.write_text(f"[server]\nport = {_free_port()}\nmax_num_seqs = 2\n", encoding="utf-8")
        with borrowed(workspace, options.attach) as server:
            if options.quick:
                started = pool.submit(server)  # It comes up while torch is imported.
                import journeyman.training.methods.trainers.distill  # noqa: F401

                values = measure(workspace, QUICK, started.result)
            else:
                values = measure(workspace, FULL, server)
    show(values)
    write_result("distillation", values, seed=0, quick=options.quick)


if __name__ == "__main__":
    main()
