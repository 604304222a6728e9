"""Work that meets faults: seeded tasks whose steps say themselves what goes wrong, and a model that does them.

A step is named in its goal, `Find t7-2/red!http_500*2`: task 7, assignment 2, branch red, HTTP 500 twice. The model and
the tools read the fault from the name, so that a model in another process needs no table.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

PARROT = "parrot"
"""The tool fails each time, and the model answers with what it said."""
TOOL_FAULTS = (
    PARROT,
    "tool_error",
    "tool_exception",
    "tool_exit",
    "tool_cancelled",
    "tool_timeout",
    "tool_hang",
    "tool_wrong_type",
    "tool_empty",
    "tool_huge",
)
EFFECT_FAULTS = ("effect_then_error", "effect_then_timeout", "effect_after_timeout")
"""The tool that writes fails after it wrote, or writes after it was given up."""
REPLY_FAULTS = ("truncated", "invalid_json", "empty_reply", "unknown_tool", "wrong_arguments", "wrong_shape")
MODEL_FAULTS = ("model_error", "model_exception", "model_hang", "worker_cancelled", "cancellation_raised")
HTTP_FAULTS = ("http_400", "http_429", "http_500", "reset", "hang", "cut_body", "not_json")
PLAN_FAULTS = ("truncated", "invalid_json", "unknown_worker", "cycle")

POISON = "FAULTTEXT"
"""Part of every text that a fault brings."""
ALWAYS = 99
VALUES = ("red", "green", "blue", "amber", "black", "white", "pink", "teal")
PATIENT, PAIRING, HASTY, LISTER = "patient", "pairing", "hasty", "lister"
"""Workers. The pairing one uses both tools at once; the hasty one gives up soon, and gets the steps that hang."""
ENDLESS = {"model_hang", "hang"}

_MARK = re.compile(r"!(\w+)\*(\d+)")
_FAILED = re.compile(r"(\d+(?:\.\d+)?) \(\w+\) (?!ok|skipped)")


@dataclass(frozen=True)
class Said:
    content: str
    finish_reason: str = "stop"
    fault: str | None = None
    """What whoever carries the reply has to do instead."""


@dataclass
class Script:
    """A model that works well but for the faults of its steps: it tries again, and never makes anything up."""

    told: Counter[str] = field(default_factory=Counter)

    def reply(self, messages: Sequence[Mapping[str, Any]]) -> Said:
        """`messages` as the chat API writes them."""
        # Complaints about earlier replies stand behind the task, after an empty line.
        asked = str(next(one["content"] for one in messages if one["role"] == "user")).split("\n\n")[0]
        right = planned(asked, messages) if asked.startswith("Plan") else worked(step_of(asked), messages)
        fault = "" if asked.startswith("List") else self._due(asked.split(" {")[0])
        if fault in (*MODEL_FAULTS, *HTTP_FAULTS):
            return Said(right, fault=fault)
        if fault in (*REPLY_FAULTS, *PLAN_FAULTS):
            return garbled(fault, right)
        return Said(right)

    def _due(self, asked: str) -> str:
        """The fault that is named, as often as it is to come; else nothing."""
        fault, times = fault_of(asked)
        self.told[asked] += 1
        return fault if self.told[asked] <= times else ""


def step_of(goal: str) -> str:
    """`t7-2/red!http_500*3` of the goal that names it."""
    return goal.split()[1]


def fact_of(step: str) -> str:
    """What there is to find in a step."""
    return f"fact{crc32(plain_step(step).encode()):08x}"


def plain_step(step: str) -> str:
    """The step without what goes wrong with it."""
    return _MARK.sub("", step)


def fault_of(step: str) -> tuple[str, int]:
    """The fault and how often it comes; an empty name where there is none."""
    mark = _MARK.search(step)
    return ("", 0) if mark is None else (mark[1], int(mark[2]))


def planned(asked: str, messages: Sequence[Mapping[str, Any]]) -> str:
    """The plan that the task holds; or, for reports of it, replacements for what failed, where the task wants them."""
    told = str(messages[-1]["content"])
    if len(messages) <= 2:
        return asked[asked.index("{") :]
    if not asked.startswith("Plan again") or "not usable" in told:
        return json.dumps({"assignments": []})
    rows = json.loads(messages[-2]["content"])["assignments"]
    failed = [match[1] for line in told.splitlines() if (match := _FAILED.match(line))]
    return json.dumps({"assignments": [_replacement(place, rows) for place in failed]})


def worked(step: str, messages: Sequence[Mapping[str, Any]]) -> str:
    """A worker's next turn: it finds, books, and answers with what it found."""
    shown = [str(one["content"]) for one in messages[2:] if one["role"] != "assistant"]
    pairs = messages[0]["content"] == PAIRING
    if step.startswith("list:"):
        return json.dumps({"answer": step.removeprefix("list:").split(",")})
    if fault_of(step)[0] == PARROT and shown:
        return json.dumps({"answer": shown[-1]})
    booked = [text for text in shown if "book: " in text]
    missing = [] if any(fact_of(step) in text for text in shown) else ["find"]
    if (pairs or not missing) and len(booked) < 2 and not any("booked" in text for text in booked):
        missing.append("book")
    # Two calls are the same where their arguments are: only a fault of `book` itself goes with it.
    bookable = step if fault_of(step)[0] in EFFECT_FAULTS else plain_step(step)
    calls = [{tool: {"step": bookable if tool == "book" else step}} for tool in missing]
    return json.dumps((calls if pairs else calls[0]) if calls else {"answer": fact_of(step)})


def garbled(fault: str, right: str) -> Said:
    """A reply that is not what was asked for."""
    bad: dict[str, str] = {
        "truncated": right[: len(right) // 2],
        "invalid_json": f"{right[:-1]} {POISON}",
        "empty_reply": "",
        "unknown_tool": json.dumps({f"{POISON}_tool": {"step": "1"}}),
        "wrong_arguments": json.dumps({"find": {"step": {POISON: [1, None]}, POISON: 2}}),
        "wrong_shape": json.dumps([POISON, 1, None]),
        "unknown_worker": json.dumps({"assignments": [{"worker": POISON, "goal": POISON}]}),
        "cycle": json.dumps({"assignments": [{"worker": PATIENT, "goal": f"{POISON} {{1}}", "needs": [1]}]}),
    }
    return Said(bad[fault], finish_reason="length" if fault == "truncated" else "stop")


@dataclass(frozen=True)
class Case:
    """One task, and what must be true of its end whatever goes wrong."""

    name: str
    prompt: str
    steps: tuple[str, ...]
    healthy: frozenset[str]
    """Facts of steps that neither have a fault nor wait for one: they must be reported."""
    planned: bool
    """False for a crew of one agent."""
    cancel_s: float | None = None
    """Seconds after which whoever asked goes away."""

    @property
    def facts(self) -> frozenset[str]:
        return frozenset(fact_of(step) for step in self.steps)

    @property
    def faults(self) -> list[str]:
        named = [fault_of(step)[0] for step in (*self.steps, self.prompt.split(" {")[0] if self.planned else "")]
        return [fault for fault in named if fault] + ["run_cancelled"] * (self.cancel_s is not None)


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

    def mark() -> str:
        if chance.random() >= rate:
            return ""
        return f"!{chance.choice(faults)}*{chance.choice((1, 1, 2, ALWAYS))}"

    name = f"t{number}"
    if chance.random() < 0.1:
        trouble = mark()
        step = f"{name}-1{'' if fault_of(trouble)[0] in ENDLESS else trouble}"
        return Case(name, f"Find {step}", (step,), _healthy([Row(PATIENT, "", (step,))]), planned=False)
    rows = SHAPES[chance.randrange(len(SHAPES))](name, mark, chance)
    trouble = f"!{chance.choice(PLAN_FAULTS)}*{chance.choice((1, 1, ALWAYS))}" if chance.random() < rate / 4 else ""
    cancel_s = chance.uniform(0.0, 0.15) if chance.random() < rate / 4 else None
    plan = json.dumps({"assignments": [row.wire for row in rows]})
    return Case(
        name=name,
        prompt=f"Plan {chance.choice(('again', 'once'))}{trouble} {name} {plan}",
        steps=tuple(step for row in rows for step in row.steps),
        healthy=frozenset() if trouble or cancel_s is not None else _healthy(rows),
        planned=True,
        cancel_s=cancel_s,
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
    branches = Row(_worker(*steps), f"Find {name}-2/{{1}}", steps, each=1)
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


def _replacement(place: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same step again, without its fault; waits for nothing, because the model of these steps needs nothing."""
    number, _, branch = place.partition(".")
    row = rows[int(number) - 1]
    goal = _MARK.sub("", row["goal"]).partition(" after ")[0]
    if branch:
        values = rows[row["each"] - 1]["goal"].removeprefix("List list:").split(",")
        goal = goal.replace(f"{{{row['each']}}}", _MARK.sub("", values[int(branch) - 1]))
    return {"worker": PATIENT, "goal": goal, "replaces": place}


def _row(step: str, needs: tuple[int, ...] = ()) -> Row:
    waiting = "".join(f" after {{{need}}}" for need in needs)
    return Row(_worker(step), f"Find {step}{waiting}", (step,), needs=needs)


def _worker(*steps: str) -> str:
    if any(fault_of(step)[0] in ENDLESS for step in steps):
        return HASTY
    return PAIRING if crc32(steps[0].encode()) % 3 == 0 else PATIENT


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
