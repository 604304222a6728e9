"""A row is in the prompt that its agent is shown now, whatever the one who gave the reply was shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, Example
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.prompt import prompt_form
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.tools.tool import Tool
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Origin, Purpose
from journeyman.training.data.mine import Mined, mine_sft
from journeyman.training.data.source import MineConfig, Source

EXAMPLES = (Example(user="1 + 1?", assistant=write_answer("2")), Example(user="1 + 2?", assistant=write_answer("3")))
PLAN = json.dumps({"assignments": [{"worker": "worker", "goal": "Add."}]})


class Answers(ScriptedModel):
    """Plans, and adds; a teacher, or a server that gives the ids of its tokens."""

    def __init__(self, *, demonstrates: bool) -> None:
        super().__init__(lambda request: PLAN if "Plan" in request.messages[0].content else write_answer("4"))
        self.demonstrates = demonstrates

    async def complete(self, request: ModelRequest) -> ModelReply:
        reply = await super().complete(request)
        ids = {} if self.demonstrates else {"prompt_token_ids": (1,), "token_ids": (2,), "logprobs": (-0.5,)}
        return reply.model_copy(update=ids)


def crew(
    instructions: str = "Add.", *, examples: tuple[Example, ...] = EXAMPLES, description: str = "adds", **more: Any
) -> Crew:
    tools = {"look": Tool(lambda: "", name="look", description="Looks.")}
    worker = Agent(
        name="worker", instructions=instructions, examples=examples, description=description, tools=("look",), **more
    )
    boss = Agent(name="boss", instructions="Plan.", examples=examples)
    return Crew(name="sums", orchestrator=boss, workers=(worker,), tools=tools)


class Record:
    def __init__(self, folder: Path) -> None:
        self._log = SpanLog(folder / "spans")
        self.store = TraceStore(folder / "spans", folder / "labels.jsonl")

    async def run(
        self, crew: Crew, policy: str = "base", *, taught: bool = False, purpose: Purpose = "service"
    ) -> ScriptedModel:
        """The model that was asked."""
        model = Answers(demonstrates=taught)
        agents = dict.fromkeys(("worker", "boss"), policy)
        table = PolicyTable(agents=agents, digests={policy: "d"})
        runtime = Runtime(crew, model=model, tracer=Tracer(self._log), policies=table)
        outcome = await runtime.run("2 + 2?", origin=Origin(purpose=purpose))
        assert outcome.status == "ok", outcome.error
        return model

    def mine(self, agent: str = "worker", now: Crew | None = None) -> Mined:
        agents = {} if now is None else {one.name: one for one in now.agents}
        form = None if now is None else prompt_form(agents[agent], now)
        return mine_sft(Source(self.store, agent, MineConfig(), form=form))


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path)


@pytest.mark.parametrize("agent", ["worker", "boss"])
@pytest.mark.parametrize("tool_calls", ["json", "native"])
async def test_a_demonstration_is_in_the_prompt_that_service_shows_its_adapter(
    record: Record, agent: str, tool_calls: str
) -> None:
    """Token for token: the prompts are the same messages, with the same tools."""
    await record.run(crew(tool_calls=tool_calls), "teacher", taught=True, purpose="teach")
    (row,) = record.mine(agent).samples
    served = await record.run(crew(tool_calls=tool_calls), "any@1")
    request = served.requests[0 if agent == "boss" else 1]
    assert row.messages == request.messages
    assert list(row.tools or ()) == list(request.tools)
    member = crew(tool_calls=tool_calls).orchestrator if agent == "boss" else crew(tool_calls=tool_calls).workers[0]
    assert member is not None and row.prompt_form == prompt_form(member, crew(tool_calls=tool_calls)).digest


async def test_what_a_teacher_was_shown_makes_no_other_row(record: Record) -> None:
    await record.run(crew(), "teacher", taught=True, purpose="teach")
    await record.run(crew(examples=()), "teacher", taught=True, purpose="teach")
    (row,) = record.mine().samples
    assert row.count == 2 and [message.role for message in row.messages] == ["system", "user"]


async def test_what_a_policy_sampled_with_examples_in_sight_is_refused(record: Record) -> None:
    await record.run(crew())
    await record.run(crew(), "worker@1")
    mined = record.mine()
    assert [row.policy for row in mined.samples] == ["worker@1"]
    assert mined.refused == {"shown examples that an adapter isn't shown": 1}


async def test_a_prompt_that_has_changed_since_is_refused_unless_it_can_be_rendered_anew(record: Record) -> None:
    await record.run(crew(examples=()))
    await record.run(crew(), "teacher", taught=True, purpose="teach")
    await record.run(crew("Add up.", examples=()))
    other = "another prompt than the agent has now"
    assert [row.messages[0].content for row in record.mine().samples] == ["Add up.\nTools:\n- look {}: Looks."]
    assert record.mine().refused == {other: 2}
    now = record.mine(now=crew("Add them."))
    (row,) = now.samples
    assert (row.policy, [message.content for message in row.messages]) == (
        "teacher",
        ["Add them.\nTools:\n- look {}: Looks.", "Add."],
    )
    assert now.refused == {other: 2}


async def test_a_measurement_of_another_crew_changes_nothing(record: Record) -> None:
    await record.run(crew(examples=()))
    await record.run(crew("Try this.", examples=()), purpose="evaluation")
    assert record.mine().turns == 1


async def test_a_worker_that_changes_changes_the_prompt_of_who_plans_for_it(record: Record) -> None:
    await record.run(crew(examples=()))
    await record.run(crew(examples=(), description="adds and subtracts"))
    assert record.mine("boss").refused == {"another prompt than the agent has now": 1}
    assert record.mine("worker").refused == {}
