"""Crews in which one agent's step is wrong on purpose, in chains and in fan-outs, and scripted models for them.

A planner has readers look names up, and a joiner adds the numbers, or doubles the last one. A culprit leaves an error
in the record (loud) or does not (silent). It is wrong whenever it is asked (a habit), or was so once and is half of the
time (a slip). In half of the cases an agent that is innocent fails at a look-up first, mends it, and is right.
"""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ToolError
from journeyman.traces.trace import Task

TEACHER = "teacher"
PLANNER, READER, JOINER = "planner", "reader", "joiner"
SLIP, NOISE = 0.5, 0.05
"""How often a culprit that slipped is wrong again, and how often anybody is who is sampled."""
NAMES = re.findall(r"\w+", "Alder Birch Cedar Dogwood Elm Fir Ginkgo Hazel Iris Juniper Kelp Larch Maple Nettle Oak")
UNKNOWN = "Nowhere"
WORDINGS = ("I find", "So it is", "my source says", "here it is:", "the answer is")
"""Of draws: each says the same in its own words, so that whoever reads it is asked anew."""
_WORDS = re.compile(r"[A-Z][a-z]{2,}|\d+")

Kind = Literal["plan", "lookup", "join"]
Shape = Literal["chain", "fan-out"]


@dataclass(frozen=True)
class Case:
    """One crew at work on one task, with its culprit."""

    shape: Shape
    readers: int
    kind: Kind
    loud: bool
    habit: bool
    seed: int

    @cached_property
    def random(self) -> random.Random:
        return random.Random(repr((self.shape, self.readers, self.kind, self.loud, self.habit, self.seed)))

    @cached_property
    def names(self) -> list[str]:
        """Those that are looked up first, then others."""
        return self.random.sample(NAMES, len(NAMES))

    @cached_property
    def facts(self) -> Mapping[str, str]:
        """In a chain each name leads to the next one; the last that is looked up has a number, as have all others."""
        numbers = {name: str(self.random.randrange(100, 1000)) for name in self.names}
        if self.shape == "fan-out":
            return numbers
        leads = dict(zip(self.names, self.names[1 : self.readers], strict=False))
        return numbers | leads

    @cached_property
    def culprit(self) -> str:
        """The agent's name."""
        wrong = {"plan": PLANNER, "join": JOINER}
        return wrong.get(self.kind) or f"{READER}{self.random.randint(1, self.readers)}"

    @cached_property
    def stumbler(self) -> str | None:
        """The reader that fails first and is right then."""
        innocent = [f"{READER}{n}" for n in range(1, self.readers + 1) if f"{READER}{n}" != self.culprit]
        return self.random.choice([self.random.choice(innocent), None]) if innocent else None

    @property
    def task(self) -> Task:
        asked = self.names[: self.readers] if self.shape == "fan-out" else self.names[:1]
        values = [int(self.facts[name]) for name in asked] if self.shape == "fan-out" else [2 * int(self._end)]
        return Task(id="t", prompt=f"{self.shape} of {' '.join(asked)}", reference=str(sum(values)))

    @property
    def _end(self) -> str:
        return self.facts[self.names[self.readers - 1]]

    @property
    def crew(self) -> Crew:
        def facts(query: str) -> str:
            """Looks a name up."""
            if query not in self.facts:
                raise ToolError(f"there is nothing about {query}")
            return self.facts[query]

        def reader(number: int) -> Agent:
            return Agent(
                name=f"{READER}{number}",
                instructions=f"{READER}{number} reads.",
                tools=("facts",),
                limits=Limits(turns=5),
            )

        return Crew(
            name="culprits",
            orchestrator=Agent(name=PLANNER, instructions=f"{PLANNER} plans.", assignments=12, replans=0),
            workers=(
                *map(reader, range(1, self.readers + 1)),
                Agent(name=JOINER, instructions=f"{JOINER} joins.", verify=(r"pattern:\D*\d+\D*",)),
            ),
            tools={"facts": Tool(facts)},
        )


class Script:
    """Plays every agent of a case. A teacher is right each time, and says so in other words."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.recording = True
        """While the run is recorded, the culprit is wrong and nobody else is."""

    def __call__(self, request: ModelRequest) -> str:
        agent = request.messages[0].content.partition(" ")[0]
        wrong = request.policy != TEACHER and self._errs(agent, request)
        if agent == PLANNER:
            return self._plan(wrong)
        if agent == JOINER:
            return self._joined(request, wrong)
        return self._read(agent, request, wrong)

    def _errs(self, agent: str, request: ModelRequest) -> bool:
        culprit = agent == self._case.culprit
        if self.recording or (culprit and self._case.habit):
            return culprit
        # What an agent says in one piece of work is of one mind: its goal, not its turn, decides.
        share = _share(request.messages[1].content, request.temperature, request.seed, self._case.seed)
        return share < (SLIP if culprit else NOISE if request.temperature else 0.0)

    def _plan(self, wrong: bool) -> str:
        case = self._case
        asked = case.names[: case.readers] if case.shape == "fan-out" else case.names[:1]
        if wrong:
            asked = [*asked[:-1], UNKNOWN if case.loud else case.names[-1]]
        rows: list[dict[str, Any]]
        if case.shape == "fan-out":
            rows = [{"worker": f"{READER}{n}", "goal": f"Look up {name}."} for n, name in enumerate(asked, 1)]
        else:
            rows = [{"worker": f"{READER}1", "goal": f"Look up {asked[0]}."}]
            for n in range(2, case.readers + 1):
                rows.append({"worker": f"{READER}{n}", "goal": f"Look up {{{n - 1}}}", "needs": [n - 1]})
        needs = [*range(1, len(rows) + 1)] if case.shape == "fan-out" else [len(rows)]
        goal = ("add " if case.shape == "fan-out" else "double ") + " and ".join(f"{{{n}}}" for n in needs)
        return json.dumps({"assignments": [*rows, {"worker": JOINER, "goal": goal, "needs": needs}]})

    def _joined(self, request: ModelRequest, wrong: bool) -> str:
        goal = request.messages[1].content
        numbers = [int(word) for word in _WORDS.findall(goal) if word.isdigit()]
        total = sum(numbers) * (2 if goal.startswith("double") else 1)
        if wrong and self._case.loud and len(request.messages) == 2:
            return write_answer("no idea")
        return write_answer(self._said(str(total + 7 if wrong else total), request))

    def _read(self, agent: str, request: ModelRequest, wrong: bool) -> str:
        name = (_WORDS.findall(request.messages[1].content) or [UNKNOWN])[-1]
        last = request.messages[-1].content
        if len(request.messages) == 2:
            stumbles = agent == self._case.stumbler and request.policy != TEACHER
            other = UNKNOWN if self._case.loud else self._case.names[-2]
            return write_call("facts", {"query": other if wrong else name.lower() if stumbles else name})
        if "nothing about" in last:
            if last.endswith(name.lower()):
                return write_call("facts", {"query": name})
            return write_answer(self._case.names[-3])  # A guess.
        return write_answer(self._said(last.removeprefix("facts: "), request))

    @staticmethod
    def _said(value: str, request: ModelRequest) -> str:
        if request.policy == TEACHER:
            return value
        return (
            f"It is {value}."
            if request.temperature == 0
            else f"{WORDINGS[(request.seed or 0) % len(WORDINGS)]} {value}"
        )


def _share(*about: object) -> float:
    return int.from_bytes(sha256(repr(about).encode()).digest()[:4]) / 2**32
