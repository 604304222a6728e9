"""journeyman.runtime: run a crew, from Python or from the command line.

Names are loaded when they are first used, so that importing the package costs neither LangGraph nor langchain.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from journeyman.agents.agent import Agent, Crew, Limits, load_crew
    from journeyman.runtime.events import Ended, Event, PlanMade, ReportFiled, ToolUsed, WorkerStarted
    from journeyman.runtime.policies import PolicyTable
    from journeyman.runtime.runtime import Runtime
    from journeyman.runtime.scripted import ScriptedModel
    from journeyman.runtime.vllm import ChatVLLM
    from journeyman.tools.tool import Tool, tool
    from journeyman.traces.trace import Outcome, Task

_HOMES = {
    "Agent": "journeyman.agents.agent",
    "ChatVLLM": "journeyman.runtime.vllm",
    "Crew": "journeyman.agents.agent",
    "Ended": "journeyman.runtime.events",
    "Event": "journeyman.runtime.events",
    "Limits": "journeyman.agents.agent",
    "Outcome": "journeyman.traces.trace",
    "PlanMade": "journeyman.runtime.events",
    "PolicyTable": "journeyman.runtime.policies",
    "ReportFiled": "journeyman.runtime.events",
    "Runtime": "journeyman.runtime.runtime",
    "ScriptedModel": "journeyman.runtime.scripted",
    "Task": "journeyman.traces.trace",
    "Tool": "journeyman.tools.tool",
    "ToolUsed": "journeyman.runtime.events",
    "WorkerStarted": "journeyman.runtime.events",
    "load_crew": "journeyman.agents.agent",
    "tool": "journeyman.tools.tool",
}

__all__ = [
    "Agent",
    "ChatVLLM",
    "Crew",
    "Ended",
    "Event",
    "Limits",
    "Outcome",
    "PlanMade",
    "PolicyTable",
    "ReportFiled",
    "Runtime",
    "ScriptedModel",
    "Task",
    "Tool",
    "ToolUsed",
    "WorkerStarted",
    "load_crew",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
