"""Alternatives are drawn where they tell most: of tasks that neither always nor never succeed, many prompts first."""

from typing import Any

import pytest

from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.traces.errors import ConfigError
from journeyman.training.forks.sample import choose_draws, most_telling


def test_tasks_that_sometimes_succeed_come_before_those_that_always_or_never_do(sums: Any) -> None:
    for _ in range(3):
        sums.run(sums.right, id="always", prompt="Always add one and two.")
        sums.run(sums.misreads, id="never", prompt="Never add one and two.")
    sums.run(sums.misreads, id="new", prompt="Add something that was seen once.")
    sums.run(sums.right, id="mixed", prompt="Add them with luck.")
    newest = sums.run(sums.misreads, id="mixed", prompt="Add them with luck.")
    telling = most_telling(sums.forkable("reader").runs)
    assert [one.task.id for one in telling[:2]] == ["mixed", "new"]
    assert telling[0].trace_id == newest
    assert {one.task.id for one in telling[2:]} == {"always", "never"}


def test_a_small_budget_buys_many_prompts(sums: Any) -> None:
    for name in ("a", "b"):
        sums.run(id=name, prompt=f"Add one and two for {name}.")
    wanted = choose_draws(sums.forkable("reader"), 2, 6)
    asked = [(step.task.id, step.turn.messages[-1].content, one.seed) for step, one in wanted]
    assert [text for _, text, _ in asked] == ["one", "one", "one", "one", "two", "two"]
    assert [seed for _, _, seed in asked] == [1, 2] * 3
    assert {name for name, _, _ in asked[:4]} == {"a", "b"}
    assert all((one.temperature, one.rest) == (1.0, "live") for _, one in wanted)


def test_draws_of_one_prompt_differ_in_what_becomes_of_them(sums: Any) -> None:
    sums.run()

    def lucky(request: ModelRequest) -> str:
        drawn = request.messages[-1].content == "one" and request.temperature == 1.0
        return write_answer(str(request.seed)) if drawn else str(sums.right(request))

    wanted = choose_draws(sums.forkable("reader"), 3, 50)[:3]
    model = ScriptedModel(lucky)
    assert [one.score for one in sums.alternatives(model).take(wanted)] == [1.0, 0.0, 0.0]
    drawn = [request for request in model.requests if request.temperature == 1.0]
    assert [request.messages[-1].content for request in drawn] == ["one"] * 3
    assert {request.temperature for request in model.requests} == {0.0, 1.0}


def test_nothing_to_draw_is_refused(sums: Any) -> None:
    sums.run()
    with pytest.raises(ConfigError, match="--sample 0 draws nothing: give 1 or more"):
        choose_draws(sums.forkable("reader"), 0, 5)
