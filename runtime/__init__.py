"""journeyman.runtime: run a crew, from Python or from the command line.

Names are loaded when they are first used, so that importing the package costs neither LangGraph nor langchain.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from journeyman.agents.agent import Agent, Crew, Limits
    from journeyman.agents.budget import Budget
    from journeyman.agents.crew_file import load_crew
    from journeyman.agents.guardrails import Guardrail
    from journeyman.agents.memory import MemoryConfig
    from journeyman.agents.permissions import Permission
    from journeyman.runtime.events import (
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
    from journeyman.runtime.memory import Memory, MemoryLimits
    from journeyman.runtime.policies import PolicyTable
    from journeyman.runtime.questions import Consent, Question
    from journeyman.runtime.replay import Replay, find_fork
    from journeyman.runtime.routing import Router
    from journeyman.runtime.runlocks import RunBusyError
    from journeyman.runtime.runstore import RunRecord, RunStore
    from journeyman.runtime.runtime import Runtime
    from journeyman.runtime.scripted import ScriptedModel
    from journeyman.runtime.subgraph import CrewState
    from journeyman.runtime.vllm import ChatVLLM
    from journeyman.tools.context import ToolContext
    from journeyman.tools.tool import Tool, tool
    from journeyman.traces.errors import ConfigError, JourneymanError, ModelError, StoreError, ToolError
    from journeyman.traces.trace import Outcome, Task

_HOMES = {
    "Agent": "journeyman.agents.agent",
    "Answered": "journeyman.runtime.events",
    "Asked": "journeyman.runtime.events",
    "Budget": "journeyman.agents.budget",
    "ChatVLLM": "journeyman.runtime.vllm",
    "ConfigError": "journeyman.traces.errors",
    "Consent": "journeyman.runtime.questions",
    "Crew": "journeyman.agents.agent",
    "CrewState": "journeyman.runtime.subgraph",
    "Ended": "journeyman.runtime.events",
    "Event": "journeyman.runtime.events",
    "Guardrail": "journeyman.agents.guardrails",
    "JourneymanError": "journeyman.traces.errors",
    "Limits": "journeyman.agents.agent",
    "Memory": "journeyman.runtime.memory",
    "MemoryConfig": "journeyman.agents.memory",
    "MemoryLimits": "journeyman.runtime.memory",
    "ModelError": "journeyman.traces.errors",
    "Outcome": "journeyman.traces.trace",
    "Permission": "journeyman.agents.permissions",
    "PlanMade": "journeyman.runtime.events",
    "PolicyTable": "journeyman.runtime.policies",
    "Question": "journeyman.runtime.questions",
    "Replay": "journeyman.runtime.replay",
    "ReplyBroken": "journeyman.runtime.events",
    "ReportFiled": "journeyman.runtime.events",
    "Router": "journeyman.runtime.routing",
    "RunBusyError": "journeyman.runtime.runlocks",
    "RunRecord": "journeyman.runtime.runstore",
    "RunStore": "journeyman.runtime.runstore",
    "Runtime": "journeyman.runtime.runtime",
    "ScriptedModel": "journeyman.runtime.scripted",
    "SpentSoFar": "journeyman.runtime.events",
    "StoreError": "journeyman.traces.errors",
    "Task": "journeyman.traces.trace",
    "Token": "journeyman.runtime.events",
    "Tool": "journeyman.tools.tool",
    "ToolCalled": "journeyman.runtime.events",
    "ToolContext": "journeyman.tools.context",
    "ToolError": "journeyman.traces.errors",
    "ToolUsed": "journeyman.runtime.events",
    "WorkerStarted": "journeyman.runtime.events",
    "find_fork": "journeyman.runtime.replay",
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
