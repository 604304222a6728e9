"""The closed look-up: fixed splits that share nothing, plans that fit, demonstrations that work."""

import asyncio
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import mean

import pytest

from journeyman.agents.agent import Crew
from journeyman.agents.model import ModelRequest
from journeyman.agents.orchestrator import read_plan, write_plan
from journeyman.runtime.runtime import Runtime
from journeyman.tools.retrieve import NOTHING
from journeyman.traces.errors import ConfigError
from journeyman.traces.messages import Message
from journeyman.traces.trace import Task
from journeyman.training.data.demonstrations import TEACHER, Demonstrated
from journeyman.training.demo import fanoutqa
from journeyman.training.demo.decompositions import normalised, read_questions
from journeyman.training.demo.fanoutqa import (
    Split,
    demonstrations,
    facts,
    findings,
    gold_plan,
    lookup_crew,
    single_agent_crew,
    tasks,
)
from journeyman.training.rewards import answer_in_text

SPLITS: tuple[Split, ...] = ("train", "gate", "test")


def texts(split: Split) -> set[str]:
    """Every question, sub-question and goal of a split, as words alone."""
    ids = {task.id for task in tasks(split)}
    return {
        normalised(text)
        for question in read_questions()
        if question.id in ids
        for text in (question.text, *(fact.text for fact in question.facts), *question.findings)
    }


@cache
def taught() -> tuple[str, ...]:
    """Every text that a training row can hold: what the teacher says on train, and all it is shown."""
    crew, known = lookup_crew("train"), demonstrations("train")
    teacher = Demonstrated(crew, known)

    async def rows() -> list[str]:
        seen = [crew.workers[0].instructions, *(text for agent in crew.agents for text in shown(agent.name, crew))]
        for task in tasks("train"):
            request = ModelRequest(policy=TEACHER, messages=user(task.prompt), task_id=task.id, agent="orchestrator")
            seen += [task.prompt, (await teacher.complete(request)).content]
            for (worker, goal), work in known[task.id].work.items():
                seen += [goal, *(line for line in look_up("train", goal))]
                seen += [worker, *(str(call.arguments) for turn in work.calls for call in turn), str(work.answer)]
        return seen

    return tuple(asyncio.run(rows()))


def look_up(split: Split, query: str) -> list[str]:
    """The facts found, each on its own line."""
    return str(lookup_crew(split).tools["facts"].function(query)).splitlines()


def shown(agent: str, crew: Crew) -> list[str]:
    examples = next(one for one in crew.agents if one.name == agent).examples
    return [text for example in examples for text in (example.user, example.assistant)]


def user(*contents: str) -> tuple[Message, ...]:
    return tuple(Message(role="user", content=content) for content in contents)


def test_most_of_the_310_questions_fit_a_plan() -> None:
    plans = [question.plan for question in read_questions() if question.plan is not None]
    assert (len(read_questions()), len(plans)) == (310, 275)
    assert sum(plan.assignments[-1].each is not None for plan in plans) == 265


def test_the_splits_are_fixed() -> None:
    assert [len(tasks(split)) for split in SPLITS] == [157, 31, 76]
    assert tasks("train")[0].id == "7dcbbbdc7f1120cd"
    assert all(fanoutqa.bucket(task.id) == split for split in SPLITS for task in tasks(split))


@pytest.mark.parametrize(("one", "other"), [("train", "gate"), ("train", "test"), ("gate", "test")])
def test_two_splits_share_no_question_no_sub_question_and_no_goal(one: Split, other: Split) -> None:
    assert not texts(one) & texts(other)


def test_no_training_row_holds_a_held_out_question_or_sub_question() -> None:
    rows = "\n".join(f" {normalised(line)} " for text in taught() for line in text.splitlines())
    assert all(f" {normalised(task.prompt)} " in rows for task in tasks("train"))
    leaked = [text for split in ("gate", "test") for text in texts(split) if f" {text} " in rows]
    assert not leaked


def test_the_train_look_up_knows_train_facts_only_and_the_others_know_all() -> None:
    held_out = {fact.document for question in read_questions() for fact in question.facts} - set(facts("train"))
    assert len(facts("train")) == 1056
    assert set(facts("test")) == set(facts("gate")) == set(facts("train")) | held_out
    found = {line for task in tasks("test") for line in look_up("train", task.prompt)} - {NOTHING}
    assert found <= set(facts("train"))


def test_a_plan_survives_the_wire() -> None:
    crew = lookup_crew("test")
    for split in SPLITS:
        for task in tasks(split):
            assert read_plan(write_plan(gold_plan(task)), crew) == gold_plan(task)


def test_a_fan_out_asks_one_question_then_one_for_each_value() -> None:
    task = next(task for task in tasks("train") if task.id == "7dcbbbdc7f1120cd")
    first, each = gold_plan(task).assignments
    assert (first.goal, each.goal, each.each) == (
        "Who were the first 5 picks in the 1998 MLB Draft?",
        "What is the batting hand of {1}?",
        "1",
    )


def test_a_task_from_elsewhere_has_no_gold_plan() -> None:
    with pytest.raises(ConfigError, match="'elsewhere' is not one of the closed look-up's"):
        gold_plan(Task(id="elsewhere", prompt="Why?"))


def test_a_goal_finds_its_own_fact() -> None:
    known = findings("test")
    hits = [any(one.document in look_up("test", goal) for one in found) for goal, found in known.items()]
    assert mean(hits) > 0.98


def test_another_version_of_the_wheel_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "fanoutqa-0.9.0.dist-info").mkdir()
    (tmp_path / "fanoutqa-0.9.0.dist-info" / "METADATA").write_text("Name: fanoutqa\nVersion: 0.9.0\n")
    script = "from journeyman.training.demo.fanoutqa import tasks; tasks('train')"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert "ConfigError: fanoutqa 0.9.0 is installed" in ran.stderr
    assert "`pip install --no-deps fanoutqa==1.1.1`" in ran.stderr


def test_the_examples_are_short_train_plans_and_a_whole_look_up() -> None:
    crew = lookup_crew("test")
    prompts = {task.prompt for task in tasks("train")}
    assert crew.orchestrator is not None
    assert len(crew.orchestrator.examples) == 3
    assert {example.user for example in crew.orchestrator.examples} <= prompts
    assert [example.assistant.split('"')[1] for example in crew.workers[0].examples] == ["facts", "answer"] * 2
    assert not any(agent.examples for agent in lookup_crew("test", examples=False).agents)


def test_the_single_agent_has_the_same_tool_and_no_orchestrator() -> None:
    crew = single_agent_crew("test")
    assert crew.orchestrator is None
    assert crew.workers[0].tools == ("facts",)


async def test_the_gold_decomposition_through_the_runtime_scores_high() -> None:
    some = tasks("gate")
    crew = lookup_crew("gate")
    teacher = Demonstrated(crew, demonstrations("gate"))
    runtime = Runtime(crew, model=teacher, policies={"orchestrator": TEACHER, "lookup": TEACHER})
    outcomes = await asyncio.gather(*(runtime.run(task) for task in some))
    scores = [answer_in_text(task, outcome.answer) for task, outcome in zip(some, outcomes, strict=True)]
    assert mean(scores) > 0.85
    assert mean(answer_in_text(task, "") for task in some) == 0.0
