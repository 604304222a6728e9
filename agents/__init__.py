"""journeyman.agents: what a crew is made of, and what agents, models and checks look like to each other.

Names are loaded when they are first used, so that each costs only its own imports.
"""

# ruff: noqa: I001
from typing import TYPE_CHECKING

from journeyman.traces.exports import exports

if TYPE_CHECKING:
    from journeyman.agents.agent import (
        Agent as Agent,
        Crew as Crew,
        Example as Example,
        Limits as Limits,
        MemoryConfig as MemoryConfig,
    )
    from journeyman.agents.budget import Budget as Budget, Spent as Spent
    from journeyman.agents.calls import Calls as Calls, Used as Used
    from journeyman.agents.crew_file import load_crew as load_crew
    from journeyman.agents.decision import Decision as Decision
    from journeyman.agents.guards.guardrails import (
        Check as Check,
        CheckContext as CheckContext,
        Finding as Finding,
        Guardrail as Guardrail,
    )
    from journeyman.agents.guards.permissions import Permission as Permission, Permissions as Permissions
    from journeyman.agents.model import (
        BASE as BASE,
        Model as Model,
        ModelReply as ModelReply,
        ModelRequest as ModelRequest,
        ModelTable as ModelTable,
        StreamingModel as StreamingModel,
    )
    from journeyman.agents.plan import Answer as Answer, Assignment as Assignment, Plan as Plan, Report as Report
    from journeyman.agents.verify import Verifier as Verifier
else:
    __all__, __getattr__, __dir__ = exports(
        __name__,
        {
            "agents.agent": "Agent Crew Example Limits MemoryConfig",
            "agents.budget": "Budget Spent",
            "agents.calls": "Calls Used",
            "agents.crew_file": "load_crew",
            "agents.decision": "Decision",
            "agents.guards.guardrails": "Check CheckContext Finding Guardrail",
            "agents.guards.permissions": "Permission Permissions",
            "agents.model": "BASE Model ModelReply ModelRequest ModelTable StreamingModel",
            "agents.plan": "Answer Assignment Plan Report",
            "agents.verify": "Verifier",
        },
    )
