"""The crew that is killed at work, the plans that it follows, and a model that knows what each of its agents says.

`book` may be called once and no more, `pay` neither, and only where a person agrees; `save` may be called again, and
tells by its key that it was. The second word of a goal is the place of the work, the fourth of a replacement's what it
is done for: "Find 4 for 2".
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from _killed import Diary, Instants

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.tools.ask import ask
from journeyman.tools.context import ToolContext
from journeyman.tools.tool import Tool
from journeyman.traces.messages import Message, ToolCall

CALLS = {"Find": ("book", "save"), "Break": ("book",), "Pay": ("ask", "pay"), "List": ()}
"""What an agent calls before it answers, by the first word of its goal."""
ARGUMENTS = {"ask": "question"}
"""Name of a tool's only argument, where it is not `step`."""


@dataclass(frozen=True)
class Shape:
    """A plan, and what must have come of it at the end."""

    plan: Sequence[dict[str, Any]]
    ok: Sequence[str]
    """Assignments that end well."""
    steps: Sequence[str]
    """What is done once each, by each of `effects`."""
    effects: Sequence[str] = ("book", "save")
    replan: Sequence[dict[str, Any]] = ()
    approve: bool = False
    """A person must agree to the plan."""

    @property
    def prompt(self) -> str:
        return "\n".join(["Plan plan", *(json.dumps({"assignments": rows}) for rows in (self.plan, self.replan))])


SHAPES = {
    "flat": Shape(
        plan=[{"worker": "worker", "goal": f"Find {place}"} for place in range(1, 5)],
        ok="1234",
        steps="1234",
    ),
    "chain": Shape(
        plan=[
            {"worker": "worker", "goal": "Find 1"},
            {"worker": "worker", "goal": "Find 2 after {1}", "needs": [1]},
            {"worker": "worker", "goal": "Find 3 after {2}", "needs": [2]},
        ],
        ok="123",
        steps="123",
    ),
    "fan-out": Shape(
        plan=[
            {"worker": "lister", "goal": "List 1 of three"},
            {"worker": "worker", "goal": "Find 2.{1}", "each": 1},
            {"worker": "worker", "goal": "Find 3 after {2}", "needs": [2]},
        ],
        ok=["1", "2.1", "2.2", "2.3", "3"],
        steps=["2.1", "2.2", "2.3", "3"],
    ),
    "diamond": Shape(
        plan=[
            {"worker": "worker", "goal": "Find 1"},
            {"worker": "worker", "goal": "Find 2 after {1}", "needs": [1]},
            {"worker": "worker", "goal": "Find 3 after {1}", "needs": [1]},
            {"worker": "worker", "goal": "Find 4 after {2} and {3}", "needs": [2, 3]},
        ],
        ok="1234",
        steps="1234",
    ),
    "calls": Shape(
        plan=[
            {"worker": "native", "goal": "Find 1"},
            {"worker": "parallel", "goal": "Find 2"},
            {"worker": "native_parallel", "goal": "Find 3 after {1}", "needs": [1]},
        ],
        ok="123",
        steps="123",
    ),
    "replan": Shape(
        plan=[
            {"worker": "worker", "goal": "Find 1"},
            {"worker": "doubter", "goal": "Break 2"},
            {"worker": "worker", "goal": "Find 3 after {2}", "needs": [2]},
        ],
        replan=[
            {"worker": "worker", "goal": "Find 4 for 2", "needs": [1], "replaces": "2"},
            {"worker": "native_parallel", "goal": "Find 5 after {4}", "needs": [4]},
        ],
        ok="1345",
        steps="1235",
    ),
    "asking": Shape(
        plan=[
            {"worker": "clerk", "goal": "Pay 1"},
            {"worker": "native_clerk", "goal": "Pay 2"},
            {"worker": "worker", "goal": "Find 3 after {1}", "needs": [1]},
        ],
        ok="123",
        steps="12",
        effects=("pay",),
        approve=True,
    ),
}


def crew_of(shape: Shape, diary: Diary, instants: Instants) -> Crew:
    def book(step: str, context: ToolContext) -> str:
        instants.pass_by("before effect")
        diary.write("book", step, context.key)
        instants.pass_by("after effect")
        return f"done {step}"

    def pay(step: str, context: ToolContext) -> str:
        instants.pass_by("before effect")
        diary.write("pay", step, context.key)
        instants.pass_by("after effect")
        return f"done {step}"

    def save(step: str, context: ToolContext) -> str:
        instants.pass_by("before effect")
        if ["save", step, context.key] not in diary.read():
            diary.write("save", step, context.key)
        instants.pass_by("after effect")
        return f"done {step}"

    tools = {
        "book": Tool(book, description="Books a step.", writes=True),
        "save": Tool(save, description="Saves a step.", writes=True, idempotent=True),
        "pay": Tool(pay, description="Pays for a step.", writes=True, approve=True),
        "ask": ask(),
    }
    return Crew(
        name="mortal",
        orchestrator=Agent(name="planner", instructions="Plan.", approve=shape.approve),
        workers=(
            _worker("worker", ("book", "save")),
            _worker("parallel", ("book", "save"), parallel_calls=2),
            _worker("native", ("book", "save"), tool_calls="native"),
            _worker("native_parallel", ("book", "save"), tool_calls="native", parallel_calls=2),
            _worker("doubter", ("book",), turns=2),
            _worker("clerk", ("ask", "pay"), parallel_calls=2),
            _worker("native_clerk", ("ask", "pay"), tool_calls="native", parallel_calls=2),
            Agent(name="lister", instructions="List.", output="values"),
        ),
        tools=tools,
    )


def _worker(name: str, tools: tuple[str, ...], turns: int = 5, **options: Any) -> Agent:
    limits = Limits(turns=turns)
    return Agent(name=name, instructions="Work.", tools=tools, verify=("pattern:fact-.*",), limits=limits, **options)


class SlowModel(ScriptedModel):
    """Plans what the task says, and works: each call that the goal wants, then an answer. Takes a while to reply."""

    def __init__(self, diary: Diary, latency_s: float) -> None:
        super().__init__(self._say)
        self._diary = diary
        self._latency_s = latency_s

    async def complete(self, request: ModelRequest) -> ModelReply:
        await asyncio.sleep(self._latency_s)
        return await super().complete(request)

    def _say(self, request: ModelRequest) -> str | Message:
        asked = request.messages[1].content
        verb, place, *rest = asked.split()
        plans = sum(one.role == "assistant" for one in request.messages)
        if verb == "Plan" and plans:
            place = f"plan.{plans}"
        said = json.dumps([[one.role, one.content] for one in request.messages])
        self._diary.write("asked", place, sha256(said.encode()).hexdigest()[:16])
        if verb == "Plan":
            return asked.splitlines()[1 + plans]
        if verb == "List":
            return json.dumps({"answer": ["1", "2", "3"]})
        step = rest[1] if rest[:1] == ["for"] else place
        told = _told(request.messages[2:])
        if missing := [tool for tool in CALLS[verb] if tool not in told]:
            return _calling(missing if request.parallel_calls else missing[:1], step, native=bool(request.tools))
        for tool, texts in told.items():
            if not any("done" in text for text in texts):
                self._diary.write("unsure", tool, step)
        answer = "nothing" if verb == "Break" else f"fact-{step}"
        return answer if request.tools else json.dumps({"answer": answer})


def _told(messages: Sequence[Message]) -> Mapping[str, list[str]]:
    """What each tool said to the agent."""
    names = {call.id: call.name for one in messages for call in one.tool_calls}
    told: dict[str, list[str]] = {}
    for one in messages:
        if one.role == "tool":
            told.setdefault(names[one.tool_call_id or ""], []).append(one.content)
        elif one.role == "user":
            for tool, text in re.findall(r"^(?:\d\. )?(book|save|pay|ask): (.*)$", one.content, re.MULTILINE):
                told.setdefault(tool, []).append(text)
    return told


def _calling(tools: Sequence[str], step: str, *, native: bool) -> str | Message:
    wanted = [(tool, {ARGUMENTS.get(tool, "step"): step}) for tool in tools]
    if native:
        calls = tuple(ToolCall(id=f"{tool}-{step}", name=tool, arguments=given) for tool, given in wanted)
        return Message(role="assistant", content="", tool_calls=calls)
    rows = [{tool: given} for tool, given in wanted]
    return json.dumps(rows if len(rows) > 1 else rows[0])
