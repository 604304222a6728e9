"""journeyman.agents: what a crew is made of, and what agents, models and checks look like to each other.

Names are loaded when they are first used, so that each costs only its own imports.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from journeyman.agents.agent import Agent, Crew, Example, Limits, MemoryConfig
    from journeyman.agents.budget import Budget, Spent
    from journeyman.agents.calls import Calls, Used
    from journeyman.agents.crew_file import load_crew
    from journeyman.agents.decision import Decision
    from journeyman.agents.guards.guardrails import Check, CheckContext, Finding, Guardrail
    from journeyman.agents.guards.permissions import Permission, Permissions
    from journeyman.agents.model import BASE, Model, ModelReply, ModelRequest, ModelTable, StreamingModel
    from journeyman.agents.plan import Answer, Assignment, Plan, Report
    from journeyman.agents.verify import Verifier

_HOMES = {
    "Agent": "journeyman.agents.agent",
    "Answer": "journeyman.agents.plan",
    "Assignment": "journeyman.agents.plan",
    "BASE": "journeyman.agents.model",
    "Budget": "journeyman.agents.budget",
    "Calls": "journeyman.agents.calls",
    "Check": "journeyman.agents.guards.guardrails",
    "CheckContext": "journeyman.agents.guards.guardrails",
    "Crew": "journeyman.agents.agent",
    "Decision": "journeyman.agents.decision",
    "Example": "journeyman.agents.agent",
    "Finding": "journeyman.agents.guards.guardrails",
    "Guardrail": "journeyman.agents.guards.guardrails",
    "Limits": "journeyman.agents.agent",
    "MemoryConfig": "journeyman.agents.agent",
    "Model": "journeyman.agents.model",
    "ModelReply": "journeyman.agents.model",
    "ModelRequest": "journeyman.agents.model",
    "ModelTable": "journeyman.agents.model",
    "Permission": "journeyman.agents.guards.permissions",
    "Permissions": "journeyman.agents.guards.permissions",
    "Plan": "journeyman.agents.plan",
    "Report": "journeyman.agents.plan",
    "Spent": "journeyman.agents.budget",
    "StreamingModel": "journeyman.agents.model",
    "Used": "journeyman.agents.calls",
    "Verifier": "journeyman.agents.verify",
    "load_crew": "journeyman.agents.crew_file",
}

__all__ = [
    "BASE",
    "Agent",
    "Answer",
    "Assignment",
    "Budget",
    "Calls",
    "Check",
    "CheckContext",
    "Crew",
    "Decision",
    "Example",
    "Finding",
    "Guardrail",
    "Limits",
    "MemoryConfig",
    "Model",
    "ModelReply",
    "ModelRequest",
    "ModelTable",
    "Permission",
    "Permissions",
    "Plan",
    "Report",
    "Spent",
    "StreamingModel",
    "Used",
    "Verifier",
    "load_crew",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
