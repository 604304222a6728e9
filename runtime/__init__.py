"""journeyman.runtime: run a crew, from Python or from the command line.

Names are loaded when they are first used, so that importing the package costs neither LangGraph nor langchain.
"""

# ruff: noqa: I001
from typing import TYPE_CHECKING

from journeyman.traces.exports import exports

if TYPE_CHECKING:
    from journeyman.agents.agent import Agent as Agent, Crew as Crew, Limits as Limits, MemoryConfig as MemoryConfig
    from journeyman.agents.budget import Budget as Budget
    from journeyman.agents.crew_file import load_crew as load_crew
    from journeyman.agents.guards.guardrails import Guardrail as Guardrail
    from journeyman.agents.guards.permissions import Permission as Permission
    from journeyman.runtime.flow.crew_graph import CrewState as CrewState
    from journeyman.runtime.flow.crew_graph import NoAnswerError as NoAnswerError
    from journeyman.runtime.models.policies import PolicyTable as PolicyTable
    from journeyman.runtime.models.routing import Router as Router
    from journeyman.runtime.models.scripted import ScriptedModel as ScriptedModel
    from journeyman.runtime.models.vllm import ChatVLLM as ChatVLLM
    from journeyman.runtime.replay.fork import find_fork as find_fork
    from journeyman.runtime.replay.replay import Replay as Replay
    from journeyman.runtime.run.events import (
        Answered as Answered,
        Asked as Asked,
        Ended as Ended,
        Event as Event,
        PlanMade as PlanMade,
        ReplyBroken as ReplyBroken,
        ReportFiled as ReportFiled,
        SpentSoFar as SpentSoFar,
        Token as Token,
        ToolCalled as ToolCalled,
        ToolUsed as ToolUsed,
        WorkerStarted as WorkerStarted,
    )
    from journeyman.runtime.runtime import Runtime as Runtime
    from journeyman.runtime.store.locks import RunBusyError as RunBusyError
    from journeyman.runtime.store.memory import Memory as Memory, MemoryLimits as MemoryLimits
    from journeyman.runtime.store.questions import Consent as Consent, Question as Question
    from journeyman.runtime.store.run_store import RunRecord as RunRecord, RunStore as RunStore
    from journeyman.tools.context import ToolContext as ToolContext
    from journeyman.tools.tool import Tool as Tool, tool as tool
    from journeyman.traces.errors import (
        ConfigError as ConfigError,
        JourneymanError as JourneymanError,
        ModelError as ModelError,
        StoreError as StoreError,
        ToolError as ToolError,
    )
    from journeyman.traces.trace import Origin as Origin, Outcome as Outcome, Task as Task
else:
    __all__, __getattr__, __dir__ = exports(
        __name__,
        {
            "agents.agent": "Agent Crew Limits MemoryConfig",
            "agents.budget": "Budget",
            "agents.crew_file": "load_crew",
            "agents.guards.guardrails": "Guardrail",
            "agents.guards.permissions": "Permission",
            "runtime.flow.crew_graph": "CrewState NoAnswerError",
            "runtime.models.policies": "PolicyTable",
            "runtime.models.routing": "Router",
            "runtime.models.scripted": "ScriptedModel",
            "runtime.models.vllm": "ChatVLLM",
            "runtime.replay.fork": "find_fork",
            "runtime.replay.replay": "Replay",
            "runtime.run.events": "Answered Asked Ended Event PlanMade ReplyBroken ReportFiled "
            "SpentSoFar Token ToolCalled ToolUsed WorkerStarted",
            "runtime.runtime": "Runtime",
            "runtime.store.locks": "RunBusyError",
            "runtime.store.memory": "Memory MemoryLimits",
            "runtime.store.questions": "Consent Question",
            "runtime.store.run_store": "RunRecord RunStore",
            "tools.context": "ToolContext",
            "tools.tool": "Tool tool",
            "traces.errors": "ConfigError JourneymanError ModelError StoreError ToolError",
            "traces.trace": "Origin Outcome Task",
        },
    )
