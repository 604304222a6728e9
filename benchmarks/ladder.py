"""Claim: each rung of the ladder, from a prompt to rewards, is worth what it costs, given the same time to learn.

One family, BFCL's function calls. Each rung learns from the same tasks for the same wall-clock, and is then measured on
tasks of other functions. What it costs is told for a point gained. A rung that was measured is not climbed again; one
whose method isn't there is passed over, and the table says so.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from time import perf_counter, time_ns
from typing import Any, NamedTuple

from _record import write_result
from _server import borrowed

from journeyman.agents.model import BASE
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.capture.energy import read_counters
from journeyman.traces.errors import JourneymanError
from journeyman.traces.files import write_whole
from journeyman.traces.trace import Task
from journeyman.training.data.choosing.choose import ChooseConfig, Choosing
from journeyman.training.data.mine import mine_to_file
from journeyman.training.data.samples import SFTSample, dataset_file_name, read_samples
from journeyman.training.data.sft import SFTMining
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.evaluation.bench import Bench, with_policies
from journeyman.training.evaluation.evaluate import summarise
from journeyman.training.improve.from_tasks import TaskJob, Watcher, driver_of
from journeyman.training.improve.teach import TeachConfig, Teaching
from journeyman.training.methods.job import METHODS, load_recipe, train_adapter, try_job

FAMILY = "journeyman.training.demo.bfcl"
"""The module of the task set, which needs a wheel of its own."""
AGENT = "caller"
SEED = 0


class Size(NamedTuple):
    seconds: float
    """That each rung may learn for."""
    train: int
    test: int
    tokens: int
    """Of a reply."""


FULL = Size(seconds=1800, train=200, test=100, tokens=128)
QUICK = Size(seconds=4, train=4, test=2, tokens=16)


class SkippedError(JourneymanError):
    """The rung can't be climbed here."""


class Ladder:
    """One family of tasks in a workspace, and what each rung makes of it."""

    def __init__(self, workspace: Workspace, size: Size, server: Callable[[], Any]) -> None:
        family = import_module(FAMILY)
        learn, test = family.parts(family.tasks("simple"), (0.6, 0.4), seed=SEED)
        self.size = size
        self.train: list[Task] = learn[: size.train]
        self._workspace = workspace
        self._server = server
        self._test: list[Task] = test[: size.test]
        self._scorer: str = family.SCORER
        self._base_model = Path(pull_model(workspace.config.server.model))
        self._crew = family.caller_crew(size.tokens)
        self._file = workspace.root / "caller.toml"
        (worker,) = self._crew.workers
        write_whole(
            self._file,
            f'name = "{self._crew.name}"\n\n[workers.{AGENT}]\ninstructions = {json.dumps(worker.instructions)}\n'
            f"limits = {{ turns = 1, repairs = 0, tokens = {size.tokens}, seconds = 900 }}\n",
        )

    @property
    def _bench(self) -> Bench:
        self._server()
        return Bench.open(self._workspace, self._file, self._test, self._scorer, source="bfcl test", seed=SEED)

    def measure(self, policy: str) -> Mapping[str, float]:
        episodes = self._bench.episodes(
            with_policies(self._workspace, PolicyTable(), {} if policy == BASE else {AGENT: policy})
        )
        found = summarise(policy, episodes)
        return {"score": found.score, "low": found.low, "high": found.high}

    def teach(self) -> None:
        """The right calls that the task set has, as runs of the crew."""
        config = TeachConfig(scorer=self._scorer, seed=SEED)
        Teaching.open(self._workspace, self._file, self.train, {}, config, source="bfcl train").teach()

    def sft(self, seconds: float) -> str:
        """As many steps as fit into the time, by a trial of two."""
        self.teach()
        source = Source(self._workspace.store, AGENT, MineConfig(purposes=("teach",)))
        file = mine_to_file(
            SFTMining(source),
            self._workspace.datasets,
            lambda digest: dataset_file_name(AGENT, digest),
            Choosing(source, ChooseConfig()),
        )
        if file is None:
            raise SkippedError("the task set's calls gave no row; look at `journeyman mine --agent caller`")
        job: dict[str, Any] = {"agent": AGENT, "base_model": self._base_model, "workspace": self._workspace}
        samples = read_samples(file.path, SFTSample)
        steps = self._kept(
            f"sft-{seconds:g}",
            lambda: max(3, int(seconds / try_job(samples, recipe=load_recipe("sft"), **job).step_seconds)),
        )
        return train_adapter(samples, recipe=load_recipe("sft", {"trl.max_steps": steps}), **job).policy

    def by_tasks(self, method: str, start: str, settings: Mapping[str, Any]) -> str:
        """What a method makes that runs the crew itself."""
        if method not in METHODS or METHODS[method].driver is None:
            raise SkippedError(f"method {method} isn't there, or learns from rows that nobody mines here yet")
        self._server()
        driver = driver_of(
            TaskJob(
                workspace=self._workspace,
                agent=AGENT,
                recipe=load_recipe(method, settings),
                crew=self._file,
                tasks=tuple(self.train),
                source="bfcl train",
                scorer=self._scorer,
                base_model=self._base_model,
                parent=start,
                start=start,
            )
        )
        return driver.train(Watcher()).policy

    def runs_in(self, seconds: float) -> int:
        """So many runs of the untrained crew fit into the time, by those that were measured."""

        def find() -> int:
            began = perf_counter()
            self._bench.episodes(PolicyTable(), again=True)
            return max(8, int(seconds / ((perf_counter() - began) / len(self._test))))

        return self._kept("runs", find)

    def tokens_since(self, began_ns: int) -> int:
        query = "SELECT coalesce(sum(input_tokens + output_tokens), 0)::BIGINT AS n FROM turns WHERE started_ns >= ?"
        return int(self._workspace.store.sql(query, [began_ns]).to_pylist()[0]["n"])

    def watt_hours(self, joules: float | None, seconds: float) -> float | None:
        """By the machine's counters, else by the watts that the workspace names."""
        if joules is not None:
            return joules / 3600
        watts = self._workspace.config.traces.watts
        return None if watts is None else watts * seconds / 3600

    def _kept(self, name: str, find: Callable[[], int]) -> int:
        """What the clock said once: a run that goes on must not be another job."""
        path = self._workspace.root / f"{name}.json"
        if not path.exists():
            write_whole(path, json.dumps(find()))
        return int(json.loads(path.read_text(encoding="utf-8")))


def prompt(ladder: Ladder, seconds: float) -> str:
    ladder.teach()
    return ladder.by_tasks("prompt", BASE, {"prompt.metric_calls": ladder.runs_in(seconds), "prompt.minibatch": 2})


def beyond_sft(method: str) -> Callable[[Ladder, float], str]:
    """Half of the time for SFT, half for the method from there."""

    def rung(ladder: Ladder, seconds: float) -> str:
        if method not in METHODS:
            raise SkippedError(f"method {method} isn't there")
        return ladder.by_tasks(method, ladder.sft(seconds / 2), {})

    return rung


RUNGS: Mapping[str, Callable[[Ladder, float], str]] = {
    "untrained": lambda ladder, seconds: BASE,
    "prompt": prompt,
    "sft": lambda ladder, seconds: ladder.sft(seconds),
    "sft+rft": beyond_sft("rft"),
    "sft+dpo": beyond_sft("dpo"),
    "sft+grpo": beyond_sft("grpo"),
}


def climb(ladder: Ladder, path: Path) -> dict[str, Any]:
    """All rungs; `path` keeps those that were measured."""
    done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    skipped: dict[str, str] = {}
    for name, rung in RUNGS.items():
        if name in done:
            continue
        print(f"-- {name}", flush=True)
        began, began_ns, before = perf_counter(), time_ns(), read_counters()
        try:
            policy = rung(ladder, ladder.size.seconds)
        except JourneymanError as error:  # A search that found nothing better, or a method that isn't there.
            skipped[name] = str(error)
            print(f"   passed over: {error}", flush=True)
            continue
        seconds, after = perf_counter() - began, read_counters()
        joules = None if before is None or after is None else after.joules - before.joules
        cost = {"seconds": round(seconds, 1), "wh": ladder.watt_hours(joules, seconds)}
        tokens = ladder.tokens_since(began_ns)
        done[name] = {"name": name, "policy": policy, **ladder.measure(policy), **cost, "tokens": tokens}
        write_whole(path, json.dumps(done))
    rungs = [done[name] for name in RUNGS if name in done]
    return {"family": "bfcl simple", "equal_seconds": ladder.size.seconds, "rungs": rungs, "skipped": skipped}


def show(values: Mapping[str, Any]) -> None:
    print(
        f"\n{'rung':12} {'score':>6}  {'95% interval':>14} {'seconds':>8} {'Wh':>6} {'tokens':>9}  for a point gained"
    )
    first = next((row["score"] for row in values["rungs"] if row["name"] == "untrained"), 0.0)
    for row in values["rungs"]:
        points = 100 * (row["score"] - first)
        price = f"{row['seconds'] / points:.0f} s, {row['tokens'] / points:,.0f} tokens" if points > 0 else "-"
        energy = "-" if row["wh"] is None else f"{row['wh']:.1f}"
        print(
            f"{row['name']:12} {row['score']:6.3f}  {row['low']:6.3f} - {row['high']:5.3f} {row['seconds']:8.0f} "
            f"{energy:>6} {row['tokens']:9,}  {price}"
        )
    for name, reason in values["skipped"].items():
        print(f"{name:12} passed over: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few tasks and seconds; its figures mean nothing")
    parser.add_argument("-C", "--workspace", type=Path, default=Path(".ladder/.journeyman"))
    parser.add_argument("--attach", metavar="URL", help="a server that runs already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / ".journeyman" if arguments.quick else arguments.workspace
        workspace, size = Workspace(root).create(), QUICK if arguments.quick else FULL
        with borrowed(workspace, arguments.attach) as server:
            values = climb(Ladder(workspace, size, server), workspace.root / "ladder.json")
    show(values)
    write_result("ladder", values, seed=SEED, quick=arguments.quick)


if __name__ == "__main__":
    main()
