"""What people wrote down is held to the crew, and played as they did it: tools are called, answers said."""

import re
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.orchestrator import read_plan, write_plan
from journeyman.runtime.runtime import Runtime
from journeyman.tools.retrieve import retrieve
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.demonstrations import TEACHER, Demonstrated, read_demonstration

asked: list[int] = []


def double(number: int) -> int:
    """Twice the number."""
    asked.append(number)
    return 2 * number


FACTS = ["Which trees? oak, elm", "How old is the oak? 90", "How old is the elm? 70"]
LOOKUP = Agent(name="lookup", instructions="Look up.", tools=("facts",), tool_first=True, output="values")
WRITER = Agent(name="writer", instructions="Write.")
CREW = Crew(
    name="lookups",
    orchestrator=Agent(name="orchestrator", instructions="Plan."),
    workers=(LOOKUP, WRITER),
    tools={"facts": retrieve(FACTS, k=1, name="facts")},
)
ALONE = Crew(
    name="alone",
    orchestrator=None,
    workers=(Agent(name="clerk", instructions="Reckon.", tools=("double",), limits=Limits(turns=3)),),
    tools={"double": Tool(double)},
)


def looked_up(query: str, *answer: str) -> dict[str, Any]:
    return {"calls": [{"facts": {"query": query}}], "answer": [*answer]}


TREES = {"worker": "lookup", "goal": "Which trees?", **looked_up("trees", "oak", "elm")}
AGES: dict[str, Any] = {
    "worker": "lookup",
    "goal": "How old is the {1}?",
    "each": 1,
    "values": {"oak": looked_up("oak old", "90"), "elm": looked_up("elm old", "70")},
}
SUM = {"worker": "writer", "goal": "Add up {2}", "needs": [2], "answer": "160 in all"}


def task(demonstration: Any, prompt: str = "How old are the trees?") -> Task:
    return Task(id="q1", prompt=prompt, demonstration=demonstration)


async def played(crew: Crew, *tasks: Task) -> list[Any]:
    known = {one.id: read_demonstration(one, crew) for one in tasks if one.demonstration is not None}
    policies = {agent.name: TEACHER for agent in crew.agents}
    runtime = Runtime(crew, model=Demonstrated(crew, known), policies=policies)
    return [await runtime.run(one) for one in tasks]


def test_a_task_without_a_demonstration_is_written_down_as_before() -> None:
    assert "demonstration" not in Task(id="q1", prompt="How old?").model_dump_json()
    assert Task.model_validate_json(task({"answer": "1"}).model_dump_json()).demonstration == {"answer": "1"}


async def test_a_lone_worker_makes_the_calls_in_order_and_says_the_answer() -> None:
    asked.clear()
    shown = task({"calls": [{"double": {"number": 2}}, {"double": {"number": 4}}], "answer": "8"}, "2 doubled twice?")
    (outcome,) = await played(ALONE, shown)
    assert (outcome.status, outcome.answer, asked, outcome.model_calls) == ("ok", "8", [2, 4], 3)


async def test_a_plan_is_followed_through_fan_out_and_needs() -> None:
    (outcome,) = await played(CREW, task({"assignments": [TREES, AGES, SUM]}))
    assert (outcome.status, outcome.answer, outcome.error) == ("ok", "160 in all", None)
    assert (outcome.model_calls, outcome.tool_calls) == (8, 3)


async def test_the_same_goal_of_two_tasks_is_done_as_each_of_them_says() -> None:
    first = task({"assignments": [TREES]})
    other = {**TREES, "answer": ["fir"]}
    outcomes = await played(
        CREW, first, first.model_copy(update={"id": "q2", "demonstration": {"assignments": [other]}})
    )
    assert [outcome.answer for outcome in outcomes] == ["oak, elm", "fir"]


async def test_what_nobody_demonstrated_fails_and_says_so() -> None:
    (outcome,) = await played(CREW, task(None))
    assert (outcome.status, outcome.error) == ("failed", "nobody demonstrated task 'q1'")


async def test_an_answer_that_the_crew_refuses_is_told_with_the_reason() -> None:
    strict = ALONE.model_copy(update={"workers": (ALONE.workers[0].model_copy(update={"verify": ("number",)}),)})
    (outcome,) = await played(strict, task({"answer": "many"}))
    assert outcome.status == "failed" and outcome.error is not None
    assert "the demonstrated answer wasn't accepted" in outcome.error and "'many' is not a number" in outcome.error


@pytest.mark.parametrize("form", ["json", "native"])
async def test_calls_at_once_are_written_in_the_form_of_the_agent(form: str) -> None:
    asked.clear()
    worker = ALONE.workers[0].model_copy(update={"parallel_calls": 2, "tool_calls": form})
    crew = ALONE.model_copy(update={"workers": (worker,)})
    shown = task({"calls": [[{"double": {"number": 1}}, {"double": {"number": 3}}]], "answer": "2 and 6"})
    (outcome,) = await played(crew, shown)
    assert (outcome.answer, sorted(asked), outcome.tool_calls) == ("2 and 6", [1, 3], 2)


def test_the_form_that_the_page_shows_is_the_one_that_is_read() -> None:
    page = Path(__file__).parents[3] / "training" / "data" / "README.md"
    blocks = re.findall(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [one for one in blocks if "demonstration" in one]
    alone, planned = (Task.model_validate_json(line) for line in block.splitlines())
    query = Tool(lambda query: query, name="orders", parameters={"type": "object"})
    clerk = ALONE.workers[0].model_copy(update={"tools": ("orders",)})
    crew = ALONE.model_copy(update={"workers": (clerk,), "tools": {"orders": query}})
    assert [work.answer for work in read_demonstration(alone, crew).work.values()] == ["3"]
    done = read_demonstration(planned, CREW).work
    assert [goal for _, goal in done] == ["Which trees?", "How old is the oak?", "How old is the elm?"]


def test_a_demonstrated_plan_is_one_that_the_crew_itself_could_write() -> None:
    plan = read_demonstration(task({"assignments": [TREES, AGES, SUM]}), CREW).plan
    assert read_plan(write_plan(plan), CREW) == plan


@pytest.mark.parametrize(
    ("demonstration", "told"),
    [
        ("90", "write a table of keys, as in"),
        ({"assignments": []}, "it must have 1 to 12 assignments"),
        ({"plan": [TREES]}, "unknown key 'plan'"),
        ({"assignments": [{**TREES, "worker": "looker"}]}, "names worker 'looker'; there are: lookup, writer"),
        ({"assignments": [{**TREES, "needs": [2]}]}, "needs 2; it can only need an earlier one"),
        ({"assignments": [{**TREES, "answer": None}]}, "assignment 1 has no answer: write in `answer` what lookup"),
        (
            {"assignments": [{**TREES, "answer": "oak"}]},
            "answer must be a list of strings, because lookup answers with",
        ),
        ({"assignments": [{**TREES, "calls": []}]}, "assignment 1 has no calls, and lookup must call a tool"),
        (
            {"assignments": [{**TREES, "calls": [{"look": {}}]}]},
            "calls 'look', which lookup doesn't have; it has: facts",
        ),
        ({"assignments": [{**TREES, "calls": [{"facts": {"q": "x"}}]}]}, "facts doesn't take these arguments"),
        ({"assignments": [{**TREES, "calls": ["facts"]}]}, "a call is an object with its tool as the key"),
        ({"assignments": [{**TREES, "calls": TREES["calls"] * 4}]}, "takes 5 turns, and lookup has 4"),
        ({"assignments": [{**TREES, "calls": [TREES["calls"] * 2]}]}, "makes 2 calls at once, and lookup 1 to 1"),
        (
            {"assignments": [TREES, {**AGES, "values": {"oak": AGES["values"]["oak"]}}]},
            "`values` for 'elm' has no answer",
        ),
        ({"assignments": [TREES, {**AGES, "answer": ["90"]}]}, "assignment 2 fans out: write `values`"),
        ({"assignments": [{**TREES, "values": {"oak": {}}}]}, "has `values`, and no `each`"),
    ],
)
def test_what_does_not_fit_the_crew_is_one_line_that_names_the_task_and_the_fix(demonstration: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_demonstration(task(demonstration), CREW)
    assert str(caught.value).startswith("task 'q1': demonstration") and told in str(caught.value)
    assert "\n" not in str(caught.value)
