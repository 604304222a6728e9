"""Claim: replaying a run with one step replaced names the agent whose step decided it, where other rules guess.

Crews with a planted culprit (a wrong plan, look-up or join) in chains and fan-outs, with scripted models. Each rule
names the agent that it finds guilty of a run that failed; where it can't tell some apart, each of them is named in
part. The price is the model calls that a rule makes for a run.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from _culprits import NOISE, SLIP, TEACHER, Case, Kind, Script, Shape
from _record import write_result

from journeyman.agents.model import ModelTable
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.serving.backend import Backend
from journeyman.runtime.workspace import Workspace
from journeyman.traces.reports.success import wilson
from journeyman.traces.trace import Origin, Trace
from journeyman.training.data.credit import Credit, credit_turns
from journeyman.training.forks.alternatives import Alternatives, Step
from journeyman.training.forks.counterfactual import credit_steps, culprit, replacements
from journeyman.training.rewards import answer_in_text

SEED = 0
SCORER = "journeyman.training.rewards:answer_in_text"
RULES = (
    "one reward for all",
    "first error",
    "documented rule",
    "counterfactual (resample)",
    "counterfactual (teacher)",
)


def cases(seeds: int) -> list[Case]:
    sizes: list[tuple[Shape, int]] = [("chain", 2), ("chain", 5), ("fan-out", 3), ("fan-out", 6)]
    return [
        Case(shape=shape, readers=readers, kind=kind, loud=loud, habit=habit, seed=seed)
        for (shape, readers), kind, loud, habit, seed in product(
            sizes, get_args(Kind), (False, True), (False, True), range(SEED, SEED + seeds)
        )
    ]


class Failed:
    """The recorded run of a case, which its culprit spoiled."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self._script = Script(case)
        self._workspace = Workspace(folder)
        with Recording(self._workspace) as recording:
            runtime = Runtime(case.crew, model=ScriptedModel(self._script), tracer=recording.tracer)
            outcome = runtime.run_sync(case.task, origin=Origin())
        self._script.recording = False
        self.trace: Trace = self._workspace.store.get(outcome.trace_id)
        self.agents = sorted({turn.agent for turn in self.trace.turns})
        self.score = answer_in_text(case.task, outcome.answer) if outcome.answer else 0.0
        assert self.score < 1.0, f"{case}: its culprit decides nothing"
        self.credits = credit_turns(self.trace.model_copy(update={"labels": ()}))

    def replayed(self, how: str) -> tuple[list[str], int]:
        """Whom counterfactual credit names, and how many model calls it took."""
        alternatives = Alternatives(
            self._workspace,
            self.case.crew,
            SCORER,
            backend=Backend(models=ModelTable(ScriptedModel(self._script)), router=None, server=None),
            policies=PolicyTable(),
            purpose="replay",
            budget=10**6,
            conditions=[how],
        )
        turns = sorted(self.trace.turns, key=lambda turn: turn.started_ns)
        steps = [Step(self.trace, turn, self.case.task, self.score) for turn in turns]
        made = alternatives.take([(step, one) for one in replacements(how) for step in steps])
        named = culprit(credit_steps(made), [turn.span_id for turn in turns])
        return ([] if named is None else [named.agent]), alternatives.calls


def lowest(credits: Mapping[str, Credit], value: Callable[[Credit], float]) -> list[str]:
    """The agents with the lowest mean over their calls."""
    of_agent: dict[str, list[float]] = defaultdict(list)
    for credit in credits.values():
        of_agent[credit.agent].append(value(credit))
    means = {agent: fmean(values) for agent, values in of_agent.items()}
    least = min(means.values())
    return [agent for agent, mean in means.items() if mean <= least + 1e-9]


def named(run: Failed) -> Iterator[tuple[str, list[str], int]]:
    """Of each rule whom it names, and its price."""
    yield RULES[0], run.agents, 0
    first = [credit.agent for credit in run.credits.values() if credit.terms["first_error"] == 0.0]
    yield RULES[1], first or run.agents, 0
    yield RULES[2], lowest(run.credits, lambda credit: credit.reward), 0
    for rule, how in zip(RULES[3:], ("resample", TEACHER), strict=True):
        yield rule, *run.replayed(how)


def measure(seeds: int) -> dict[str, Any]:
    right: dict[str, dict[Case, float]] = defaultdict(dict)
    calls: dict[str, list[int]] = defaultdict(list)
    recorded = []
    every = cases(seeds)
    for number, case in enumerate(every, start=1):
        with tempfile.TemporaryDirectory() as folder:
            run = Failed(case, Path(folder) / ".journeyman")
            recorded.append(len(run.trace.turns))
            for rule, agents, price in named(run):
                right[rule][case] = (case.culprit in agents) / max(1, len(agents))
                calls[rule].append(price)
        if number % 48 == 0:
            print(f"{number} of {len(every)} runs", flush=True)
    rows = [_row(rule, right[rule], calls[rule]) for rule in RULES]
    print(f"{'rule':28} {'named right':>12} {'at 95%':>16} {'calls a run':>12}")
    for row in rows:
        bounds = "{low:.3f} .. {high:.3f}".format(**row)
        print(f"{row['name']:28} {row['named_right']:12.3f} {bounds:>16} {row['calls_per_run']:12.1f}")
    return {
        "rules": rows,
        "runs": len(every),
        "calls_of_a_run": round(fmean(recorded), 2),
        "slip": SLIP,
        "noise": NOISE,
    }


def _row(rule: str, right: Mapping[Case, float], calls: Sequence[int]) -> dict[str, Any]:
    share = fmean(right.values())
    low, high = wilson(sum(right.values()), len(right))
    of: dict[str, Callable[[Case], bool]] = {
        "chain": lambda case: case.shape == "chain",
        "fan-out": lambda case: case.shape == "fan-out",
        "wrong plan": lambda case: case.kind == "plan",
        "wrong look-up": lambda case: case.kind == "lookup",
        "wrong join": lambda case: case.kind == "join",
        "silent": lambda case: not case.loud,
        "loud": lambda case: case.loud,
        "habit": lambda case: case.habit,
        "slip": lambda case: not case.habit,
    }
    parts = {
        name: round(fmean(value for case, value in right.items() if belongs(case)), 4) for name, belongs in of.items()
    }
    return {
        "name": rule,
        "named_right": round(share, 4),
        "calls_per_run": round(fmean(calls), 2),
        "low": round(low, 4),
        "high": round(high, 4),
        "of": parts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed")
    quick = parser.parse_args().quick
    write_result("credit", measure(1 if quick else 5), seed=SEED, quick=quick)


if __name__ == "__main__":
    main()
