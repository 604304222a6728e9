"""An agent run: one agent at work in a run, and what all its calls share."""

from functools import cached_property

from journeyman.agents.agent import Agent
from journeyman.agents.budget import Spent
from journeyman.agents.plan import Assignment
from journeyman.runtime.run.events import SpentSoFar
from journeyman.runtime.run.run import Run
from journeyman.runtime.run.steps import Steps
from journeyman.traces import attributes as a
from journeyman.traces.capture.tracer import AttributeValue, Span


class AgentRun:
    def __init__(self, run: Run, agent: Agent, parent: Span, steps: Steps, work: Assignment | None = None) -> None:
        self.run = run
        self.agent = agent
        self.parent = parent
        """The span that calls are recorded under."""
        self.steps = steps
        self.work = work
        """What a worker is at; None for who plans or judges."""
        self.assignment = None if work is None else work.id
        self.tools = {name: run.crew.tools[name] for name in agent.tools}
        """The only ones that the agent may use."""
        self.asked_by = parent.span_id
        """Span of the last model call: what its reply asked for is recorded as asked by it."""
        self.spent = Spent()
        """By this agent here, what was kept from before an interruption included."""

    @cached_property
    def attributes(self) -> dict[str, AttributeValue | None]:
        return {**self.run.attributes, a.AGENT_NAME: self.agent.name, a.ASSIGNMENT_ID: self.assignment}

    def count(self, spent: Spent) -> None:
        self.spent += spent
        if spent.model_calls:
            self.run.emit(SpentSoFar(spent=self.run.ledger.spent))
