"""The teacher plays each agent as people did, and only as far as they did."""

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest
from journeyman.agents.orchestrator import plan_schema
from journeyman.agents.plan import Assignment, Plan
from journeyman.runtime.runtime import Runtime
from journeyman.tools.retrieve import retrieve
from journeyman.traces.errors import ModelError
from journeyman.traces.messages import Message
from journeyman.training.data.teach import TEACHER, Demonstrations, Finding, Teacher

OAK, ELM = 'How old is the oak? ["90"]', 'How old is the elm? ["70"]'
TREES = 'Which trees? ["oak", "elm", "fir"]'
AGES = Plan(
    assignments=(
        Assignment(id="1", worker="lookup", goal="Which trees?"),
        Assignment(id="2", worker="lookup", goal="How old is the {1}?", each="1"),
    )
)
KNOWN = Demonstrations(
    plans={"How old are the trees?": AGES, "Which trees?": AGES},
    findings={
        "Which trees?": (Finding(values=("oak", "elm", "fir"), document=TREES),),
        "How old is the oak?": (
            Finding(values=("91",), document="How old is the oak? [91]"),
            Finding(values=("90",), document=OAK),
        ),
        "How old is the elm?": (Finding(values=("70",), document=ELM),),
    },
    tool="facts",
)
CREW = Crew(
    name="lookups",
    orchestrator=Agent(name="orchestrator", instructions="Plan."),
    workers=(
        Agent(
            name="lookup",
            instructions="Look up.",
            tools=("facts",),
            tool_first=True,
            output="values",
            limits=Limits(turns=2),
        ),
    ),
    tools={"facts": retrieve([TREES, OAK, "How old is the owl? 3"], k=2, name="facts")},
)


async def said(*user: str, plan: bool = False) -> str:
    messages = tuple(Message(role="user", content=content) for content in user)
    schema = plan_schema(CREW) if plan else None
    return (await Teacher(KNOWN).complete(ModelRequest(policy=TEACHER, messages=messages, json_schema=schema))).content


async def test_a_task_is_planned_a_goal_looked_up_and_a_result_answered() -> None:
    assert await said("Which trees?", plan=True) == (
        '{"assignments": [{"worker": "lookup", "goal": "Which trees?"}, '
        '{"worker": "lookup", "goal": "How old is the {1}?", "each": 1}]}'
    )
    assert await said("Which trees?") == '{"facts": {"query": "Which trees?"}}'
    assert await said("Which trees?", f"facts: {OAK}\n{TREES}") == '{"answer": ["oak", "elm", "fir"]}'


async def test_an_answer_that_is_out_of_sight_is_not_given() -> None:
    assert await said("How old is the elm?", f"facts: {OAK}") == '{"answer": []}'


async def test_of_two_answers_the_one_in_sight_is_given() -> None:
    assert await said("How old is the oak?", f"facts: {OAK}") == '{"answer": ["90"]}'


async def test_what_nobody_demonstrated_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="what to look up for 'How old is the fir"):
        await said("How old is the fir?")
    with pytest.raises(ModelError, match="how to plan"):
        await said("How old is the elm?", plan=True)


async def test_it_teaches_through_the_runtime_and_what_it_lacks_stays_a_failed_report() -> None:
    policies = {"orchestrator": TEACHER, "lookup": TEACHER}
    outcome = await Runtime(CREW, model=Teacher(KNOWN), policies=policies).run("How old are the trees?")
    assert outcome.answer == "oak: 90"
    assert outcome.error is not None
    assert "nobody demonstrated" in outcome.error
