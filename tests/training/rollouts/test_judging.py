"""A judge's word counts only as far as it holds in both orders; where it is down, that is said and nothing is lost."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelRequest, ModelTable
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.serving.backend import Backend
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, ModelError, ServerError, TrainingError
from journeyman.traces.trace import Task
from journeyman.training.evaluation.evaluate import Episode, evaluate
from journeyman.training.rollouts.judging import Judge
from journeyman.training.rollouts.rewards import RewardTable
from journeyman.training.rollouts.sample import Exploring

CREW = Crew(name="poets", orchestrator=None, workers=(Agent(name="poet", instructions="Write."),))
TASK = Task(id="t", prompt="Name a colour.")
JUDGED = RewardTable(score=0.0, judge=1.0)


def exploring(workspace: Workspace, model: Any) -> Exploring:
    backend = Backend(models=ModelTable(model), router=None, server=None)
    return Exploring(workspace, CREW, "poet", [TASK], [], None, backend)


def answered(workspace: Workspace, answers: Sequence[str]) -> list[Episode]:
    """A run for each answer."""
    with Recording(workspace) as recording:
        runtimes = [
            Runtime(CREW, model=ScriptedModel([write_answer(answer)]), tracer=recording.tracer) for answer in answers
        ]
        runs = [asyncio.run(evaluate(runtime, [TASK], lambda task, text: 0.0)) for runtime in runtimes]
    return [episode for episodes in runs for episode in episodes]


def shares(workspace: Workspace, episodes: list[Episode], judge: Callable[[ModelRequest], str]) -> list[float]:
    """What each of the answers won."""
    made = Judge.of(exploring(workspace, ScriptedModel(judge)), JUDGED)
    assert made is not None
    won = made.shares([TASK], episodes)
    return [won[episode.trace_id] for episode in episodes]


def longer(request: ModelRequest) -> str:
    text = request.messages[-1].content
    first, second = text.split("First answer: ")[1].split("\n\nSecond answer: ")
    return write_answer("first" if len(first) > len(second) else "second")


def test_the_better_answer_wins_in_both_orders(workspace: Workspace) -> None:
    episodes = answered(workspace, ["red", "crimson", "reddish"[:4]])
    assert shares(workspace, episodes, longer) == [0.0, 1.0, 0.5]


def test_a_judge_that_prefers_what_it_reads_first_prefers_nothing(workspace: Workspace) -> None:
    episodes = answered(workspace, ["red", "blue", "green"])
    assert shares(workspace, episodes, lambda _: write_answer("first")) == [0.5, 0.5, 0.5]


def test_equal_answers_and_missing_ones_need_no_judge(workspace: Workspace) -> None:
    episodes = answered(workspace, ["red", "red"])
    judge = Judge.of(exploring(workspace, ScriptedModel([])), JUDGED)
    assert judge is not None
    won = judge.shares([TASK], episodes)
    assert list(won.values()) == [0.5, 0.5]


def test_a_comparison_is_recorded_and_nobody_learns_from_it(workspace: Workspace) -> None:
    episodes = answered(workspace, ["red", "crimson"])
    shares(workspace, episodes, longer)
    judged = [trace for trace in workspace.store.traces() if trace.crew == "comparison"]
    assert [trace.origin.purpose for trace in judged if trace.origin] == ["evaluation", "evaluation"]


def test_a_judge_that_is_down_is_named_in_one_line(workspace: Workspace) -> None:
    episodes = answered(workspace, ["red", "blue"])
    down = ScriptedModel([ModelError("no connection", kind="unreachable")] * 8)
    judge = Judge.of(exploring(workspace, down), JUDGED)
    assert judge is not None
    with pytest.raises(ServerError, match=r"the judge base doesn't answer: .*; run it again once it does, what was"):
        judge.shares([TASK], episodes)


def test_a_judge_that_decides_nothing_is_refused(workspace: Workspace) -> None:
    episodes = answered(workspace, ["red", "blue"])
    with pytest.raises(TrainingError, match="the judge base decided none of 1 comparisons: name a stronger one"):
        shares(workspace, episodes, lambda _: "I would rather not.")


def test_a_judge_that_there_is_not_is_refused(workspace: Workspace) -> None:
    table = RewardTable(judge=1.0, judge_policy="wise")
    with pytest.raises(ConfigError, match="there is no policy 'wise'; have base"):
        Judge.of(exploring(workspace, ScriptedModel([])), table)


def test_without_a_weight_there_is_no_judge(workspace: Workspace) -> None:
    assert Judge.of(exploring(workspace, ScriptedModel([])), RewardTable()) is None
