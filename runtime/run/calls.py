"""An agent's calls in earnest: `agents.calls.Calls`, with permissions, budget, record and memory of what was done."""

from journeyman.agents.agent import Agent
from journeyman.agents.budget import Spent
from journeyman.agents.plan import Assignment
from journeyman.runtime.run.agent_run import AgentRun
from journeyman.runtime.run.model_calls import ModelCalls
from journeyman.runtime.run.run import Run
from journeyman.runtime.run.steps import Steps
from journeyman.runtime.run.tool_calls import ToolCalls
from journeyman.traces import attributes as a
from journeyman.traces.capture.tracer import Span


class AgentCalls:
    """The calls of one agent in one step of a run; every call is a span under `parent`."""

    def __init__(
        self,
        run: Run,
        agent: Agent,
        parent: Span,
        steps: Steps,
        *,
        goal: str,
        work: Assignment | None = None,
        final: bool = False,
    ) -> None:
        self._agent_run = AgentRun(run, agent, parent, steps, work)
        models = ModelCalls(self._agent_run, goal, final=final)
        self.policy = models.policy
        self.prompt = run.record.policies.prompts.get(self.policy)
        if run.tracer.records:
            parent.set({a.PROMPT_FORM: run.form(agent, self.policy)})
        self.ask = models.ask
        self.use = ToolCalls(self._agent_run).use

    @property
    def spent(self) -> Spent:
        return self._agent_run.spent
