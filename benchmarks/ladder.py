"""Claim: each rung of the ladder, from a prompt to rewards, is worth what it costs, given the same time to learn.

One family, BFCL's function calls, in the parts of `rewards.py`. Each rung learns for the same wall-clock, as near as
its steps and rounds allow, and is then measured on held-out tasks. Its price is told for a point gained. A rung that
was measured is not climbed again. One that can't be climbed is passed over, and the table says why.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter, time_ns
from typing import Any

from _calls import AGENT, FAMILY, FULL, QUICK, Calls, Clock, Size
from _record import write_result
from rewards import WAYS, free_port

from journeyman.agents.model import BASE
from journeyman.runtime.serving.backend import open_backend
from journeyman.runtime.serving.embedded import model_digest
from journeyman.runtime.workspace import Workspace
from journeyman.traces.capture.energy import read_counters
from journeyman.traces.errors import JourneymanError
from journeyman.traces.files import write_whole
from journeyman.training.demo import bfcl
from journeyman.training.demo.demo import OnDemand
from journeyman.training.evaluation.evaluate import mean_interval
from journeyman.training.improve.prompting import Prompting
from journeyman.training.methods.recipes.known import METHODS, load_recipe
from journeyman.training.methods.recipes.prompt import PromptRecipe

SECONDS, QUICK_SECONDS = 600.0, 1.0
"""That each rung may learn for."""
BEST_OF = 4
"""Replies to a task in a round of RFT or DPO: several rounds fit into half of that time."""
SEED = 0


class SkippedError(JourneymanError):
    """The rung can't be climbed here."""


class Ladder:
    """One family of tasks, and what is known of the time that things take. It is kept, so that a rung goes on."""

    def __init__(self, workspace: Workspace, size: Size, seconds: float) -> None:
        self.seconds = seconds
        self._workspace = workspace
        self._size = size
        self._path = workspace.root / "ladder.json"
        known = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
        self.rungs: dict[str, dict[str, Any]] = known.get("rungs", {})
        self._paces: dict[str, float] = known.get("paces", {})

    def calls(self, **changes: Any) -> Calls:
        return Calls(self._workspace, self._size._replace(**changes), Clock(1.0), seed=SEED)

    def keep(self) -> None:
        write_whole(self._path, json.dumps({"rungs": self.rungs, "paces": self._paces}))

    def pace(self, name: str, measure: Callable[[], object], units: int) -> float:
        """Seconds for a unit of work, as they were when it was measured first."""
        if name not in self._paces:
            began = perf_counter()
            measure()
            self._paces[name] = (perf_counter() - began) / units
            self.keep()
        return self._paces[name]


def untrained(ladder: Ladder) -> str:
    """It tells what a run takes, too: none of these was made before."""
    run_seconds(ladder)
    return BASE


def run_seconds(ladder: Ladder) -> float:
    calls = ladder.calls()
    return ladder.pace("run", lambda: calls.measured(BASE), len(calls.held_out) * calls.size.samples)


def prompt(ladder: Ladder) -> str:
    """Examples from the demonstrations; the model is too small to write instructions."""
    calls = ladder.calls()
    calls.demonstrated()
    tasks = [*calls.shown, *calls.rewarded]
    runs = max(len(tasks) + 8, int(ladder.seconds / run_seconds(ladder)))
    recipe = load_recipe("prompt", {"prompt.metric_calls": runs, "prompt.minibatch": 2, "prompt.concurrency": 32})
    assert isinstance(recipe, PromptRecipe)
    with OnDemand(calls.workspace, calls.workspace.config.server) as server:
        server()
        prompted = Prompting(
            calls.workspace,
            calls.crew,
            AGENT,
            tasks,
            recipe,
            conditions=[FAMILY, calls.size.tokens],
            base_digest=model_digest(calls.base_model),
            backend=lambda: open_backend(calls.workspace),
            start=BASE,
            source=FAMILY,
            scorer=bfcl.SCORER,
        ).optimise()
    if prompted.adapter is None:
        raise SkippedError(f"no prompt scored above the first one's {prompted.search.first_score:.3f}")
    return prompted.adapter.policy


def sft(ladder: Ladder, share: float = 1.0) -> str:
    """As many steps as fit into its share of the time."""
    few = {**ladder.calls().size.sft, "trl.max_steps": 3}
    pace = ladder.pace("step", lambda: ladder.calls(sft=few).first_policy(), 3)
    steps = max(3, int(share * ladder.seconds / pace))
    return ladder.calls(sft={**few, "trl.max_steps": steps}).first_policy()


def beyond(method: str) -> Callable[[Ladder], str]:
    """Half of the time for SFT, half for rounds of the method from there."""

    def rung(ladder: Ladder) -> str:
        if method not in WAYS or method not in METHODS:
            raise SkippedError(f"method {method} isn't there")
        start = sft(ladder, share=0.5)
        pace = ladder.pace(method, lambda: WAYS[method](ladder.calls(rounds=1, grpo_steps=1), start), 1)
        rounds = max(1, int(ladder.seconds / 2 / pace))
        return WAYS[method](ladder.calls(rounds=rounds, grpo_steps=rounds), start).policy

    return rung


RUNGS: Mapping[str, Callable[[Ladder], str]] = {
    "untrained": untrained,
    "prompt": prompt,
    "sft": sft,
    "sft+rft": beyond("rft"),
    "sft+dpo": beyond("dpo"),
    "sft+grpo": beyond("grpo"),
}


def climb(ladder: Ladder, workspace: Workspace) -> dict[str, Any]:
    """All rungs, those left out that were measured before."""
    skipped: dict[str, str] = {}
    for name, rung in RUNGS.items():
        if name in ladder.rungs:
            continue
        print(f"-- {name}", flush=True)
        began, began_ns, before = perf_counter(), time_ns(), read_counters()
        try:
            policy = rung(ladder)
        except JourneymanError as error:  # A search that found nothing better, or a method that taught nothing.
            skipped[name] = str(error)
            print(f"   passed over: {error}", flush=True)
            continue
        seconds, after = perf_counter() - began, read_counters()
        joules = None if before is None or after is None else after.joules - before.joules
        tokens = tokens_since(workspace, began_ns)
        measured = ladder.calls().measured(policy)
        low, high = mean_interval(list(measured.by_task.values()), confidence=0.95)
        ladder.rungs[name] = {
            "name": name,
            "policy": policy,
            "score": round(measured.mean, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "seconds": round(seconds, 1),
            "wh": watt_hours(workspace, joules, seconds),
            "tokens": tokens,
        }
        ladder.keep()
    rungs = [ladder.rungs[name] for name in RUNGS if name in ladder.rungs]
    return {"family": FAMILY, "equal_seconds": ladder.seconds, "rungs": rungs, "skipped": skipped}


def tokens_since(workspace: Workspace, began_ns: int) -> int:
    """Read and generated, in all that was recorded since."""
    query = "SELECT coalesce(sum(input_tokens + output_tokens), 0)::BIGINT AS tokens FROM turns WHERE started_ns >= ?"
    return int(workspace.store.sql(query, [began_ns]).to_pylist()[0]["tokens"])


def watt_hours(workspace: Workspace, joules: float | None, seconds: float) -> float | None:
    """By the machine's counters, else by the watts that the workspace names; None where nothing tells."""
    if joules is not None:
        return joules / 3600
    watts = workspace.config.traces.watts
    return None if watts is None else watts * seconds / 3600


def show(values: Mapping[str, Any]) -> None:
    print(f"\n{'rung':10} {'score':>6}  {'95% interval':>14} {'seconds':>8} {'Wh':>6} {'tokens':>10}  a point gained")
    first = next((row["score"] for row in values["rungs"] if row["name"] == "untrained"), 0.0)
    for row in values["rungs"]:
        points = 100 * (row["score"] - first)
        price = f"{row['seconds'] / points:.0f} s, {row['tokens'] / points:,.0f} tokens" if points > 0 else "-"
        energy = "-" if row["wh"] is None else f"{row['wh']:.1f}"
        print(
            f"{row['name']:10} {row['score']:6.3f}  {row['low']:6.3f} - {row['high']:5.3f} {row['seconds']:8.0f} "
            f"{energy:>6} {row['tokens']:10,}  {price}"
        )
    for name, reason in values["skipped"].items():
        print(f"{name:10} passed over: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few tasks and seconds; its figures mean nothing")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that each rung may learn for")
    parser.add_argument("-C", "--workspace", type=Path, default=Path(".journeyman/ladder/.journeyman"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / ".journeyman" if arguments.quick else arguments.workspace
        workspace, size = Workspace(root).create(), QUICK if arguments.quick else FULL._replace(best_of=BEST_OF)
        if arguments.quick:
            workspace.config_file.write_text(f"[server]\nport = {free_port()}\n")
        seconds = QUICK_SECONDS if arguments.quick else arguments.seconds
        with workspace.lock("ladder"), OnDemand(workspace, workspace.config.server) as server:
            if arguments.quick:
                server()  # Else each rung starts the one that it needs.
            values = climb(Ladder(workspace, size, seconds), workspace)
    show(values)
    write_result("ladder", values, seed=SEED, quick=arguments.quick)


if __name__ == "__main__":
    main()
