"""Only runs that may be learned from are forked, and each that may not is counted with its reason."""

from typing import Any

import pytest

from journeyman.agents.agent import Agent
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.replay.fork import Replacement
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import HELD_OUT, Purpose, Task
from journeyman.training.data.tasks.heldout import HeldOut


def test_the_newest_run_is_first_and_each_has_its_score(sums: Any) -> None:
    wrong, well = sums.run(), sums.run(sums.right)
    runs = sums.forkable("reader").runs
    assert [(one.trace_id, one.score, one.solved) for one in runs] == [(well, 1.0, True), (wrong, 0.0, False)]


def test_the_steps_are_the_agents_model_calls_in_their_order(sums: Any) -> None:
    sums.run()
    forkable = sums.forkable("reader")
    steps = forkable.steps(forkable.runs[0])
    assert [step.turn.messages[-1].content for step in steps] == ["one", "two"]
    assert [step.turn.agent for step in sums.forkable("planner").steps(forkable.runs[0])] == ["planner"]
    assert all(step.calls_from_here in (2, 3) for step in steps)


@pytest.mark.parametrize("purpose", HELD_OUT)
def test_a_run_that_was_made_to_measure_is_never_forked(sums: Any, purpose: Purpose) -> None:
    sums.run(purpose=purpose)
    with pytest.raises(ConfigError, match=rf"no run of reader in crew 'sums' can be forked: made for {purpose} \(1\)"):
        sums.forkable("reader")


@pytest.mark.parametrize("name", ["gate", "test", "vault"])
def test_a_run_of_a_held_out_task_is_never_forked_near_ones_included(sums: Any, name: str) -> None:
    sums.run(prompt="Please add the numbers one and two together now.")
    near = Task(id="h", prompt="Please add the numbers one and two together now!!", reference="3")
    with pytest.raises(ConfigError, match=f"a task of {name}"):
        sums.forkable("reader", held_out=HeldOut({name: [near]}, 0.7))


def test_a_fork_is_not_forked_again(sums: Any) -> None:
    run = sums.run()
    forkable = sums.forkable("reader")
    step = forkable.steps(forkable.runs[0])[0]
    sums.alternatives(ScriptedModel(sums.right)).take([(step, Replacement())])
    assert [one.trace_id for one in sums.forkable("reader").runs] == [run]


def test_a_run_without_a_reference_has_the_one_of_a_task_file(sums: Any) -> None:
    sums.run(sums.right, reference=None)
    with pytest.raises(ConfigError, match=r"no reference to score with \(1\)"):
        sums.forkable("reader")
    known = Task(id="other", prompt="Add one and two", reference="3")
    assert [one.score for one in sums.forkable("reader", tasks=[known]).runs] == [1.0]


def test_a_crew_that_has_changed_is_a_counted_reason(sums: Any) -> None:
    sums.run()
    readers = (Agent(name="reader", instructions="Read well."), sums.crew.workers[1])
    other = sums.crew.model_copy(update={"workers": readers})
    forkable = sums.forkable("reader", crew=other)
    assert forkable.steps(forkable.runs[0]) == []
    with pytest.raises(ConfigError, match=r"can be forked: reader is shown another prompt now \(1\)"):
        forkable.check_some([])
    with pytest.raises(ConfigError, match=r"another crew's run \(1\)"):
        sums.forkable("reader", crew=sums.crew.model_copy(update={"name": "products"}))


def test_an_agent_without_runs_is_told_so(sums: Any) -> None:
    with pytest.raises(ConfigError, match="can be forked: there are none; run tasks with the crew first"):
        sums.forkable("reader")
