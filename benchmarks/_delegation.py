"""The work that `overhead.py` gives to every runtime: a plan, n workers that each use one tool once, and a join.

Standard library only: peers do it in an environment of their own. Each runtime is a process that works on command, so
that the rounds of all of them can take turns. Models answer at once and tools return at once: what is left is the
runtime itself.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter

PLANNER = "Split the task into look-ups, one for each place."
FINDER = "Look the place up with lookup, then answer what it says."

Work = Callable[[int], Awaitable[str]]
"""Does the whole work with so many workers, and gives the answer."""


def prompt(workers: int) -> str:
    return f"Which moons have the places 1 to {workers}?"


def goals(prompt: str) -> list[str]:
    """What a planner's model makes of the prompt."""
    workers = int(prompt.rstrip("?").rpartition(" ")[2])
    return [f"Which moons has place {number}?" for number in range(1, workers + 1)]


async def lookup(query: str) -> str:
    """Looks up what is known of a place."""
    return f"{query} None that anybody has seen."


def join(answers: list[str]) -> str:
    return "; ".join(answers)


def expected(workers: int) -> str:
    return join([f"{goal} None that anybody has seen." for goal in goals(prompt(workers))])


def serve(work: Work) -> None:
    """Reads `{"workers": n, "tasks": k}` line by line; writes the seconds that each task took, one after the other."""
    with asyncio.Runner() as loop:
        for line in sys.stdin:
            order = json.loads(line)
            print(json.dumps(loop.run(_seconds(work, order["workers"], order["tasks"]))), flush=True)


async def _seconds(work: Work, workers: int, tasks: int) -> list[float]:
    taken = []
    for _ in range(tasks):
        began = perf_counter()
        answer = await work(workers)
        taken.append(perf_counter() - began)
        assert answer == expected(workers), answer
    return taken
