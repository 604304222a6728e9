"""An agent's calls in earnest: `agents.calls.Calls`, with permissions, budget, record and memory of what was done."""

from journeyman.agents.agent import Agent
from journeyman.agents.budget import Spent
from journeyman.runtime.desk import Desk
from journeyman.runtime.model_calls import ModelCalls
from journeyman.runtime.run import Run
from journeyman.runtime.steps import Steps
from journeyman.runtime.tool_calls import ToolCalls
from journeyman.traces.tracer import Span


class RecordedCalls:
    """The calls of one agent at one place of a run; every call is a span under `parent`."""

    def __init__(
        self,
        run: Run,
        agent: Agent,
        parent: Span,
        steps: Steps,
        *,
        goal: str,
        assignment: str | None = None,
        final: bool = False,
    ) -> None:
        self._desk = Desk(run, agent, parent, steps, assignment)
        models = ModelCalls(self._desk, goal, final=final)
        self.policy = models.policy
        self.ask = models.ask
        self.use = ToolCalls(self._desk).use

    @property
    def spent(self) -> Spent:
        return self._desk.spent
