"""journeyman.runtime: run a crew, from Python or from the command line.

Names are loaded when they are first used, so that importing the package costs neither LangGraph nor langchain.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from journeyman.agents.agent import Agent, Crew, Limits, MemoryConfig
    from journeyman.agents.budget import Budget
    from journeyman.agents.crew_file import load_crew
    from journeyman.agents.guards.guardrails import Guardrail
    from journeyman.agents.guards.permissions import Permission
    from journeyman.runtime.flow.crew_graph import CrewState
    from journeyman.runtime.models.policies import PolicyTable
    from journeyman.runtime.models.routing import Router
    from journeyman.runtime.models.scripted import ScriptedModel
    from journeyman.runtime.models.vllm import ChatVLLM
    from journeyman.runtime.replay.replay import Replay, find_fork
    from journeyman.runtime.run.events import (
        Answered,
        Asked,
        Ended,
        Event,
        PlanMade,
        ReplyBroken,
        ReportFiled,
        SpentSoFar,
        Token,
        ToolCalled,
        ToolUsed,
        WorkerStarted,
    )
    from journeyman.runtime.runtime import Runtime
    from journeyman.runtime.store.locks import RunBusyError
    from journeyman.runtime.store.memory import Memory, MemoryLimits
    from journeyman.runtime.store.questions import Consent, Question
    from journeyman.runtime.store.run_store import RunRecord, RunStore
    from journeyman.tools.context import ToolContext
    from journeyman.tools.tool import Tool, tool
    from journeyman.traces.errors import ConfigError, JourneymanError, ModelError, StoreError, ToolError
    from journeyman.traces.trace import Outcome, Task

_HOMES = {
    "Agent": "journeyman.agents.agent",
    "Answered": "journeyman.runtime.run.events",
    "Asked": "journeyman.runtime.run.events",
    "Budget": "journeyman.agents.budget",
    "ChatVLLM": "journeyman.runtime.models.vllm",
    "ConfigError": "journeyman.traces.errors",
    "Consent": "journeyman.runtime.store.questions",
    "Crew": "journeyman.agents.agent",
    "CrewState": "journeyman.runtime.flow.crew_graph",
    "Ended": "journeyman.runtime.run.events",
    "Event": "journeyman.runtime.run.events",
    "Guardrail": "journeyman.agents.guards.guardrails",
    "JourneymanError": "journeyman.traces.errors",
    "Limits": "journeyman.agents.agent",
    "Memory": "journeyman.runtime.store.memory",
    "MemoryConfig": "journeyman.agents.agent",
    "MemoryLimits": "journeyman.runtime.store.memory",
    "ModelError": "journeyman.traces.errors",
    "Outcome": "journeyman.traces.trace",
    "Permission": "journeyman.agents.guards.permissions",
    "PlanMade": "journeyman.runtime.run.events",
    "PolicyTable": "journeyman.runtime.models.policies",
    "Question": "journeyman.runtime.store.questions",
    "Replay": "journeyman.runtime.replay.replay",
    "ReplyBroken": "journeyman.runtime.run.events",
    "ReportFiled": "journeyman.runtime.run.events",
    "Router": "journeyman.runtime.models.routing",
    "RunBusyError": "journeyman.runtime.store.locks",
    "RunRecord": "journeyman.runtime.store.run_store",
    "RunStore": "journeyman.runtime.store.run_store",
    "Runtime": "journeyman.runtime.runtime",
    "ScriptedModel": "journeyman.runtime.models.scripted",
    "SpentSoFar": "journeyman.runtime.run.events",
    "StoreError": "journeyman.traces.errors",
    "Task": "journeyman.traces.trace",
    "Token": "journeyman.runtime.run.events",
    "Tool": "journeyman.tools.tool",
    "ToolCalled": "journeyman.runtime.run.events",
    "ToolContext": "journeyman.tools.context",
    "ToolError": "journeyman.traces.errors",
    "ToolUsed": "journeyman.runtime.run.events",
    "WorkerStarted": "journeyman.runtime.run.events",
    "find_fork": "journeyman.runtime.replay.replay",
    "load_crew": "journeyman.agents.crew_file",
    "tool": "journeyman.tools.tool",
}

__all__ = [
    "Agent",
    "Answered",
    "Asked",
    "Budget",
    "ChatVLLM",
    "ConfigError",
    "Consent",
    "Crew",
    "CrewState",
    "Ended",
    "Event",
    "Guardrail",
    "JourneymanError",
    "Limits",
    "Memory",
    "MemoryConfig",
    "MemoryLimits",
    "ModelError",
    "Outcome",
    "Permission",
    "PlanMade",
    "PolicyTable",
    "Question",
    "Replay",
    "ReplyBroken",
    "ReportFiled",
    "Router",
    "RunBusyError",
    "RunRecord",
    "RunStore",
    "Runtime",
    "ScriptedModel",
    "SpentSoFar",
    "StoreError",
    "Task",
    "Token",
    "Tool",
    "ToolCalled",
    "ToolContext",
    "ToolError",
    "ToolUsed",
    "WorkerStarted",
    "find_fork",
    "load_crew",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
