"""Claim: small errors need not compound. With a check and a retry at each step, long chains end as well as short ones.

Chains of dependent steps, each a division modulo a prime: hard to do in the head, and checked by one multiplication.
The scripted worker is right with a set probability, anew at each attempt, as a model is that samples; one wrong step
spoils all that follow. Beside the crew that checks everything is one whose check can see half of the wrong numbers,
since few real checks see all.
"""

import argparse
import asyncio
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _record import RESULTS, write_result
from pydantic import JsonValue

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest
from journeyman.agents.plan import Assignment
from journeyman.agents.verify import Verifier
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.traces.trace import Outcome

SEED = 0
RIGHT = 0.95
"""How often the worker's first thought is right."""
PRIME, FACTOR = 9973, 5
GOAL = f"Which x from 0 to {PRIME - 1} has {FACTOR} * x % {PRIME} == {{target}}?"
PLANNER = "Plan the steps."


def check(output: JsonValue, assignment: Assignment) -> str | None:
    """Does the multiplication."""
    target = asked(assignment.goal)
    found = FACTOR * int(str(output)) % PRIME
    return None if found == target else f"{FACTOR} * {output} % {PRIME} is {found}, not {target}"


def half_check(output: JsonValue, assignment: Assignment) -> str | None:
    """Looks at even numbers only."""
    return None if int(str(output)) % 2 else check(output, assignment)


CREWS: Mapping[str, tuple[Verifier, ...]] = {"plain": (), "half_verified": (half_check,), "verified": (check,)}


def asked(goal: str) -> int:
    return int(goal.removesuffix("?").rpartition(" ")[2])


def solved(target: int) -> int:
    return target * pow(FACTOR, -1, PRIME) % PRIME


class Solver:
    """Plans the chain that the task asks for, and solves its steps as well as it can."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, request: ModelRequest) -> str:
        if request.messages[0].content.startswith(PLANNER):
            steps, start = map(int, re.findall(r"\d+", request.messages[-1].content))
            return chain(steps, start)
        right = solved(asked(request.messages[1].content))
        wrong = (right + self._random.randrange(1, PRIME)) % PRIME
        return write_answer(str(right if self._random.random() < RIGHT else wrong))


def chain(steps: int, start: int) -> str:
    """A plan in which each step needs the one before it."""
    rows: list[dict[str, Any]] = [{"worker": "solver", "goal": GOAL.format(target=start)}]
    for before in range(1, steps):
        rows.append({"worker": "solver", "goal": GOAL.format(target=f"{{{before}}}"), "needs": [before]})
    return json.dumps({"assignments": rows})


def crew(verify: tuple[Verifier, ...]) -> Crew:
    return Crew(
        name="chain",
        orchestrator=Agent(name="planner", instructions=PLANNER, assignments=20, replans=0, limits=Limits(tokens=4096)),
        workers=(Agent(name="solver", instructions="Solve it.", verify=verify),),
    )


async def run_chains(verify: tuple[Verifier, ...], steps: int, tasks: int) -> tuple[float, float]:
    """The share of chains that end right, and the model calls a task."""
    model = ScriptedModel(Solver(SEED + steps))
    starts = random.Random(SEED + steps)
    outcomes: list[tuple[Outcome, int]] = []
    async with Runtime(crew(verify), model=model) as runtime:
        for _ in range(tasks):
            start = end = starts.randrange(1, PRIME)
            for _ in range(steps):
                end = solved(end)
            outcomes.append((await runtime.run(f"Take {steps} steps from {start}"), end))
    right = sum(outcome.status == "ok" and outcome.answer == str(end) for outcome, end in outcomes)
    return right / tasks, sum(outcome.model_calls for outcome, _ in outcomes) / tasks


def measure(lengths: Sequence[int], tasks: int) -> dict[str, Any]:
    shares: dict[str, list[float]] = {name: [] for name in CREWS}
    calls: dict[str, list[float]] = {name: [] for name in CREWS}
    print(f"{'steps':>5} {'0.95^n':>7} " + " ".join(f"{name:>14}" for name in CREWS) + f" {'calls ratio':>12}")
    for steps in lengths:
        for name, verify in CREWS.items():
            share, cost = asyncio.run(run_chains(verify, steps, tasks))
            shares[name].append(round(share, 4))
            calls[name].append(round(cost, 3))
        ratio = calls["verified"][-1] / calls["plain"][-1]
        row = " ".join(f"{shares[name][-1]:14.3f}" for name in CREWS)
        print(f"{steps:5} {RIGHT**steps:7.3f} {row} {ratio:12.3f}", flush=True)
    return {
        "steps": list(lengths),
        **shares,
        "expected_plain": [round(RIGHT**steps, 4) for steps in lengths],
        "calls_ratio": [round(ours / plain, 4) for ours, plain in zip(calls["verified"], calls["plain"], strict=True)],
        "calls": calls,
        "right": RIGHT,
        "tasks": tasks,
    }


def plot(values: Mapping[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (success, cost) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    steps = values["steps"]
    success.plot(steps, values["verified"], marker="o", color="#4878a8", label="every step checked")
    success.plot(steps, values["half_verified"], marker="o", color="#88aa66", label="a check that sees half")
    success.plot(steps, values["plain"], marker="o", color="#a85848", label="plain chain")
    success.plot(steps, values["expected_plain"], linestyle=":", color="#222222", label=f"{RIGHT:g} to the power of n")
    success.set_ylim(0, 1.02)
    success.set_ylabel(f"chains that end right ({values['tasks']} each)")
    success.legend(loc="lower left", fontsize="small")
    cost.plot(steps, values["calls_ratio"], marker="o", color="#4878a8")
    cost.set_ylabel("model calls, checked over plain")
    for axes in (success, cost):
        axes.set_xlabel("dependent steps")
        axes.set_xticks(steps[:: max(1, len(steps) // 7)])
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five lengths and 40 chains of each; no plot")
    quick = parser.parse_args().quick
    values = measure((1, 2, 5, 10, 20) if quick else range(1, 21), tasks=40 if quick else 400)
    write_result("compounding", values, seed=SEED, quick=quick)
    if not quick:
        plot(values, RESULTS / "compounding.png")


if __name__ == "__main__":
    main()
