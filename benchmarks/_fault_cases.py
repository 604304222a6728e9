"""Seeded tasks: plans of drawn shapes, drawn faults in their steps, and what must be true of their end."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from _faults import ALWAYS, LISTER, PLAN_FAULTS, STREAM_FAULTS, fact_of, fault_of, worker_of

VALUES = ("red", "green", "blue", "amber", "black", "white", "pink", "teal")
PLANNED = "planned"
"""The crew that plans; the others are single workers."""


@dataclass(frozen=True)
class Case:
    """One task, and what must be true of its end whatever goes wrong."""

    name: str
    crew: str
    prompt: str
    steps: tuple[str, ...]
    healthy: frozenset[str]
    """Facts of steps that neither have a fault nor wait for one: they must be reported."""
    tokens: bool
    """Whether its replies are streamed."""
    cancel_s: float | None = None
    """Seconds after which whoever asked is cancelled."""
    leaves_after: int | None = None
    """Pieces of replies after which whoever asked goes away."""

    @property
    def facts(self) -> frozenset[str]:
        return frozenset(fact_of(step) for step in self.steps)


@dataclass(frozen=True)
class Row:
    """One assignment of a plan that is being drawn."""

    worker: str
    goal: str
    steps: tuple[str, ...]
    needs: tuple[int, ...] = ()
    each: int | None = None

    @property
    def wire(self) -> dict[str, Any]:
        row: dict[str, Any] = {"worker": self.worker, "goal": self.goal}
        if self.needs:
            row["needs"] = list(self.needs)
        return row if self.each is None else {**row, "each": self.each}


def draw_case(number: int, seed: int, faults: Sequence[str], *, rate: float) -> Case:
    """A task of a drawn shape; each of its steps has one of `faults` with the chance `rate`."""
    chance = random.Random(f"{seed}-{number}")
    tokens = chance.random() < 0.5
    drawn = [fault for fault in faults if tokens or fault not in STREAM_FAULTS]

    def mark() -> str:
        if chance.random() >= rate:
            return ""
        return f"!{chance.choice(drawn)}*{chance.choice((1, 1, 2, ALWAYS))}"

    name = f"t{number}"
    if chance.random() < 0.1:
        step = f"{name}-1{mark()}"
        worker = worker_of(step)
        return Case(name, worker, f"Find {step}", (step,), _healthy([Row(worker, "", (step,))]), tokens)
    rows = SHAPES[chance.randrange(len(SHAPES))](name, mark, chance)
    trouble = f"!{chance.choice(PLAN_FAULTS)}*{chance.choice((1, 1, ALWAYS))}" if chance.random() < rate / 4 else ""
    cancel_s = chance.uniform(0.0, 0.15) if chance.random() < rate / 4 else None
    leaves_after = chance.randint(1, 40) if tokens and cancel_s is None and chance.random() < rate / 4 else None
    plan = json.dumps({"assignments": [row.wire for row in rows]})
    ends_early = trouble or cancel_s is not None or leaves_after is not None
    return Case(
        name=name,
        crew=PLANNED,
        prompt=f"Plan {chance.choice(('again', 'once'))}{trouble} {name} {plan}",
        steps=tuple(step for row in rows for step in row.steps),
        healthy=frozenset() if ends_early else _healthy(rows),
        tokens=tokens,
        cancel_s=cancel_s,
        leaves_after=leaves_after,
    )


Mark = Callable[[], str]


def _flat(name: str, mark: Mark, chance: random.Random) -> list[Row]:
    return [_row(f"{name}-{place}{mark()}") for place in range(1, chance.randint(2, 8) + 1)]


def _chain(name: str, mark: Mark, chance: random.Random) -> list[Row]:
    return [
        _row(f"{name}-{place}{mark()}", needs=(place - 1,) if place > 1 else ())
        for place in range(1, chance.randint(2, 5) + 1)
    ]


def _fan_out(name: str, mark: Mark, chance: random.Random) -> list[Row]:
    """A list, a worker for each of its values, and one that needs them all."""
    values = [f"{value}{mark()}" for value in VALUES[: chance.randint(2, len(VALUES))]]
    steps = tuple(f"{name}-2/{value}" for value in values)
    source = Row(LISTER, f"List list:{','.join(values)}", ())
    branches = Row(worker_of(*steps), f"Find {name}-2/{{1}}", steps, each=1)
    return [source, branches, _row(f"{name}-3{mark()}", needs=(2,))][: chance.randint(2, 3)]


def _drawn(name: str, mark: Mark, chance: random.Random) -> list[Row]:
    """Any directed acyclic graph."""
    return [
        _row(
            f"{name}-{place}{mark()}",
            needs=tuple(sorted(need for need in range(1, place) if chance.random() < 0.35)),
        )
        for place in range(1, chance.randint(3, 9) + 1)
    ]


SHAPES = (_flat, _chain, _fan_out, _drawn)


def _row(step: str, needs: tuple[int, ...] = ()) -> Row:
    waiting = "".join(f" after {{{need}}}" for need in needs)
    return Row(worker_of(step), f"Find {step}{waiting}", (step,), needs=needs)


def _healthy(rows: Sequence[Row]) -> frozenset[str]:
    facts: set[str] = set()
    whole: dict[int, bool] = {}
    for place, row in enumerate(rows, start=1):
        waits = (*row.needs, *(() if row.each is None else (row.each,)))
        reached = all(whole[need] for need in waits)
        well = [step for step in row.steps if reached and not fault_of(step)[0]]
        facts.update(fact_of(step) for step in well)
        whole[place] = reached and len(well) == len(row.steps)
    return frozenset(facts)
