"""A crew that sums two numbers, its runs recorded in a workspace, and what answers it."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest, ModelTable
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.serving.backend import Backend
from journeyman.runtime.workspace import Workspace
from journeyman.traces.trace import Origin, Purpose, Task
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.forks.alternatives import Alternatives
from journeyman.training.forks.runs import Forkable
from journeyman.training.rewards import answer_in_text

PLAN = {
    "assignments": [
        {"worker": "reader", "goal": "one"},
        {"worker": "reader", "goal": "two"},
        {"worker": "adder", "goal": "{1} + {2}", "needs": [1, 2]},
    ]
}
CREW = Crew(
    name="sums",
    orchestrator=Agent(name="planner", instructions="Plan.", replans=0),
    workers=(
        Agent(name="reader", instructions="Read.", limits=Limits(turns=1)),
        Agent(name="adder", instructions="Add.", limits=Limits(turns=1)),
    ),
)
NUMBERS = {"one": "1", "two": "2"}
SCORER = "journeyman.training.rewards:answer_in_text"
Script = Callable[[ModelRequest], str]


def right(request: ModelRequest) -> str:
    """What each agent should say."""
    last = request.messages[-1].content
    if request.messages[0].content == "Plan.":
        return json.dumps(PLAN)
    if last in NUMBERS:
        return write_answer(NUMBERS[last])
    return write_answer(str(sum(map(int, last.split(" + ")))))


def misreads(request: ModelRequest) -> str:
    """The first number is read wrong, whoever is asked but a teacher."""
    wrong = request.messages[-1].content == "one" and request.policy != "teacher"
    return write_answer("5") if wrong else right(request)


def misadds(request: ModelRequest) -> str:
    """The sum is wrong, whoever is asked but a teacher."""
    wrong = "+" in request.messages[-1].content and request.policy != "teacher"
    return write_answer("9") if wrong else right(request)


class Sums:
    """Recorded runs of the crew, and forks of them."""

    crew = CREW
    right = staticmethod(right)
    misreads = staticmethod(misreads)
    misadds = staticmethod(misadds)

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.policies = PolicyTable()

    def run(self, script: Script = misreads, *, crew: Crew = CREW, purpose: Purpose = "service", **told: Any) -> str:
        """Its trace id."""
        task = Task(**{"id": "t", "prompt": "Add one and two.", "reference": "3", **told})
        with Recording(self.workspace) as recording:
            runtime = Runtime(crew, model=ScriptedModel(script), tracer=recording.tracer)
            return runtime.run_sync(task, origin=Origin(purpose=purpose)).trace_id

    def forkable(self, agent: str, *, tasks: Iterable[Task] = (), crew: Crew = CREW, **of_source: Any) -> Forkable:
        source = Source(self.workspace.store, agent, MineConfig(), **of_source)
        return Forkable(source, crew, answer_in_text, tasks=tasks)

    def alternatives(
        self,
        model: ScriptedModel,
        budget: int = 100,
        *,
        purpose: Purpose = "rollout",
        scorer: str = SCORER,
        crew: Crew = CREW,
    ) -> Alternatives:
        return Alternatives(
            self.workspace,
            crew,
            scorer,
            backend=Backend(models=ModelTable(model), router=None, server=None),
            policies=self.policies,
            purpose=purpose,
            budget=budget,
            concurrency=2,
        )


@pytest.fixture
def sums(workspace: Workspace) -> Sums:
    return Sums(workspace)
