"""The crews that meet faults: tools that fail as the step they are called for says, and a model within the process."""

import asyncio
import threading
from collections import Counter
from typing import Any

from _faults import (
    EFFECT_FAULTS,
    HASTY,
    LISTER,
    PAIRING,
    PARROT,
    PATIENT,
    POISON,
    TOOL_FAULTS,
    Script,
    fact_of,
    fault_of,
    plain_step,
)

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.scripted import ScriptedModel
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ModelError, ToolError

TOOL_S = 0.5
"""Seconds that a tool has."""
HASTY_S = 2.0
PATIENT_S = 60.0


class Tools:
    """`find` looks up a step's fact; `book` writes down that it was called, which must happen once for a step."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        """How often each step was booked."""
        self._calls: Counter[str] = Counter()
        self._released = threading.Event()

    def crews(self) -> tuple[Crew, Crew]:
        """A crew that plans, and one of a single agent."""
        tools = {
            "find": Tool(self._find, name="find", description="Finds a step's fact.", timeout_s=TOOL_S),
            "book": Tool(self._book, name="book", description="Books a step.", timeout_s=TOOL_S, writes=True),
        }
        planner = Agent(name="planner", instructions="Plan.", limits=Limits(seconds=PATIENT_S))
        single = _worker("single", PATIENT_S)
        workers = (_worker(PATIENT, PATIENT_S), _pairing(), _worker(HASTY, HASTY_S), _lister())
        return (
            Crew(name="planned", orchestrator=planner, workers=workers, tools=tools),
            Crew(name="single", orchestrator=None, workers=(single,), tools=tools),
        )

    def release(self) -> None:
        """Ends the calls that hang."""
        self._released.set()

    def _find(self, step: str) -> Any:
        fault = self._due(step, *TOOL_FAULTS)
        found = f"found {fact_of(step)}"
        if fault in ("tool_error", PARROT):
            raise ToolError(f"{POISON}: nothing there")
        if fault == "tool_exception":
            raise ValueError(POISON)
        if fault == "tool_exit":
            raise SystemExit(POISON)
        if fault == "tool_cancelled":
            raise asyncio.CancelledError(POISON)
        if fault == "tool_timeout":
            self._released.wait(2 * TOOL_S)
        if fault == "tool_hang":
            self._released.wait()
        if fault == "tool_wrong_type":
            return Unprintable()
        if fault == "tool_empty":
            return ""
        return f"{found} {POISON * 200_000}" if fault == "tool_huge" else found

    async def _book(self, step: str) -> str:
        fault, plain = self._due(step, *EFFECT_FAULTS), plain_step(step)
        if fault == "effect_after_timeout":
            asyncio.get_running_loop().call_later(1.2 * TOOL_S, self.effects.update, [plain])
            await asyncio.sleep(PATIENT_S)
        self.effects[plain] += 1
        if fault == "effect_then_timeout":
            await asyncio.sleep(PATIENT_S)
        if fault == "effect_then_error":
            raise ToolError(f"{POISON}: who knows whether it worked")
        return f"booked {plain}"

    def _due(self, step: str, *faults: str) -> str:
        fault, times = fault_of(step)
        if fault not in faults:
            return ""
        self._calls[step] += 1
        return fault if self._calls[step] <= times else ""


class Unprintable:
    def __str__(self) -> str:
        raise TypeError(POISON)


class FaultyModel(ScriptedModel):
    """The script within this process."""

    def __init__(self) -> None:
        super().__init__([])
        self._script = Script()

    async def complete(self, request: ModelRequest) -> ModelReply:
        said = self._script.reply([one.model_dump() for one in request.messages])
        if said.fault == "model_error":
            raise ModelError(f"{POISON}: the model is not there")
        if said.fault == "model_exception":
            raise RuntimeError(POISON)
        if said.fault == "model_hang":
            await asyncio.sleep(PATIENT_S)
        if said.fault == "cancellation_raised":
            raise asyncio.CancelledError(POISON)
        if said.fault == "worker_cancelled" and (task := asyncio.current_task()) is not None:
            task.cancel()
            await asyncio.sleep(PATIENT_S)
        reply = await ScriptedModel([said.content]).complete(request)
        return reply.model_copy(update={"finish_reason": said.finish_reason})


def _worker(name: str, seconds: float) -> Agent:
    limits = Limits(turns=6, seconds=seconds)
    # A fact and nothing else may be answered: what a tool complained of is none.
    verify = ("pattern:fact[0-9a-f]{8}",)
    return Agent(name=name, instructions="Work.", tools=("find", "book"), verify=verify, limits=limits)


def _pairing() -> Agent:
    return _worker(PAIRING, PATIENT_S).model_copy(update={"instructions": PAIRING, "parallel_calls": 2})


def _lister() -> Agent:
    return Agent(name=LISTER, instructions="List.", output="values", limits=Limits(seconds=PATIENT_S))
