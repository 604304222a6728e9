"""The crews that meet faults: tools that fail as the step they are called for says, and a model within the process."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

from _fault_cases import PLANNED
from _fault_script import Said, Script, pieces
from _faults import (
    EFFECT_FAULTS,
    LISTER,
    PARROT,
    POISON,
    REWORDED,
    TOOL_FAULTS,
    TRAITS,
    fact_of,
    fault_of,
    plain_step,
    worker_name,
)

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.models.chat_wire import check_calls, read_reply, request_body
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ModelError, ToolError

TOOL_S = 0.5
"""Seconds that a tool has."""
HASTY_S = 4.0
PATIENT_S = 60.0
SPARE = "spare"
"""The policy that workers with this trait fall back on."""


class Tools:
    """`find` looks up a step's fact; `book` writes down that it was called, which must happen once for a step."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        """How often each step was booked."""
        self._calls: Counter[str] = Counter()
        self._released = threading.Event()

    def crew(self, name: str) -> Crew:
        """The crew that plans, with a worker for each combination of traits; or the one of a single such worker."""
        tools = {
            "find": Tool(self._find, name="find", description="Finds a step's fact.", timeout_s=TOOL_S),
            "book": Tool(self._book, name="book", description="Books a step.", timeout_s=TOOL_S, writes=True),
        }
        if name != PLANNED:
            return Crew(name=name, orchestrator=None, workers=(_worker(name),), tools=tools)
        planner = Agent(name="planner", instructions="Plan.", limits=Limits(seconds=PATIENT_S))
        workers = [
            _worker(worker_name(traits)) for count in range(len(TRAITS) + 1) for traits in combinations(TRAITS, count)
        ]
        return Crew(name=name, orchestrator=planner, workers=(*workers, _lister()), tools=tools)

    def release(self) -> None:
        """Ends the calls that hang."""
        self._released.set()

    def _find(self, step: str) -> Any:
        fault = self._due(step, *TOOL_FAULTS)
        found = f"found {fact_of(step)}"
        if fault in ("tool_error", PARROT, REWORDED):
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


class FaultyModel:
    """The script within this process."""

    provider = "scripted"
    demonstrates = False

    def __init__(self) -> None:
        self._script = Script()
        self._replies = 0

    async def complete(self, request: ModelRequest) -> ModelReply:
        said = self._said(request)
        await _trouble(said)
        return self._reply(said, request)

    async def stream_reply(
        self, request: ModelRequest, on_text: Callable[[str], None], on_restart: Callable[[], None]
    ) -> ModelReply:
        """What goes wrong does so after the first piece."""
        said = self._said(request)
        first, rest = said.content[:1], said.content[1:]
        if first:
            on_text(first)
        await _trouble(said)
        for piece in pieces(rest):
            on_text(piece)
        return self._reply(said, request)

    async def aclose(self) -> None:
        """Nothing to close."""

    def _said(self, request: ModelRequest) -> Said:
        return self._script.reply(request_body(request)["messages"])

    def _reply(self, said: Said, request: ModelRequest) -> ModelReply:
        self._replies += 1
        completion = said.completion(f"reply-{self._replies}", request.policy)
        return check_calls(read_reply(json.dumps(completion).encode()), request)


async def _trouble(said: Said) -> None:
    if said.fault == "bad_history":
        raise ModelError(said.content)
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


def _worker(name: str) -> Agent:
    """The name says its traits, and so do its instructions, which is how the model knows them."""
    return Agent(
        name=name,
        instructions=name,
        tools=("find", "book"),
        tool_calls="native" if "native" in name else "json",
        parallel_calls=4 if "pairing" in name else 1,
        # A fact and nothing else may be answered: what a tool complained of is none, in whatever words.
        verify=() if "trusting" in name else ("pattern:fact[0-9a-f]{8}",),
        fallback=(SPARE,) if "spare" in name else (),
        limits=Limits(turns=6, seconds=HASTY_S if "hasty" in name else PATIENT_S),
    )


def _lister() -> Agent:
    return Agent(name=LISTER, instructions=LISTER, output="values", limits=Limits(seconds=PATIENT_S))
