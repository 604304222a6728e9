"""An alternative is a run like any other, scored, paid for out of a budget, and never made twice."""

from typing import Any

import pytest

from journeyman.agents.budget import Budget
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.replay.fork import Replacement
from journeyman.traces.errors import ConfigError, ModelError, ServerError
from journeyman.training.data.admission import Admission
from journeyman.training.forks.alternatives import Alternative, read_alternatives

TEACHER = Replacement(policy="teacher", rest="recorded")


def first_step(sums: Any, agent: str = "reader") -> Any:
    forkable = sums.forkable(agent)
    return forkable.steps(forkable.runs[0])[0]


def test_an_alternative_is_a_recorded_run_with_a_score_and_the_purpose_that_it_was_made_for(sums: Any) -> None:
    run = sums.run()
    model = ScriptedModel(sums.misreads)
    (made,) = sums.alternatives(model).take([(first_step(sums), TEACHER)])
    assert (made.run, made.agent, made.recorded, made.score, made.calls) == (run, "reader", 0.0, 1.0, 2)
    store = sums.workspace.store
    trace = store.get(made.trace_id)
    assert trace.origin is not None and trace.outcome is not None
    assert (trace.origin.purpose, trace.outcome.answer) == ("rollout", "3")
    score = trace.label("score")
    assert score is not None and score.value == 1.0
    assert {trace_id: Admission(store).refusal(trace_id) for trace_id in (run, made.trace_id)} == {
        run: None,
        made.trace_id: None,
    }


def test_nobody_learns_from_what_was_replayed_for_credit(sums: Any) -> None:
    sums.run()
    alternatives = sums.alternatives(ScriptedModel(sums.misreads), purpose="replay")
    (made,) = alternatives.take([(first_step(sums), TEACHER)])
    assert Admission(sums.workspace.store).refusal(made.trace_id) == "made for replay"


def test_what_was_made_is_not_made_again_and_counts_against_the_budget(sums: Any) -> None:
    sums.run()
    step = first_step(sums)
    wanted = [(step, TEACHER), (step, Replacement(seed=1, rest="recorded"))]
    first = sums.alternatives(ScriptedModel(sums.misreads), budget=4)
    made = first.take(wanted)
    assert (len(made), first.calls, first.left_out) == (1, 2, 1)
    idle = ScriptedModel(sums.misreads)
    again = sums.alternatives(idle, budget=4)
    assert again.take(wanted) == made
    assert (again.calls, again.left_out, idle.requests) == (2, 1, [])
    more = sums.alternatives(idle, budget=6)
    assert [one.replacement for one in more.take(wanted)] == [replacement for _, replacement in wanted]
    assert (more.calls, more.left_out) == (3, 0)


def test_a_line_that_a_crash_cut_short_is_made_again(sums: Any) -> None:
    sums.run()
    wanted = [(first_step(sums), TEACHER)]
    alternatives = sums.alternatives(ScriptedModel(sums.misreads))
    alternatives.take(wanted)
    path = alternatives.path
    path.write_bytes(path.read_bytes()[:-20])
    assert read_alternatives(path) == []
    again = sums.alternatives(ScriptedModel(sums.misreads))
    assert len(again.take(wanted)) == 1
    assert len(read_alternatives(path)) == 1
    path.write_text("{}\n")
    with pytest.raises(ConfigError, match="holds something other than alternatives: move it away"):
        read_alternatives(path)


def test_other_policies_or_another_scorer_are_other_alternatives(sums: Any) -> None:
    paths = {sums.alternatives(ScriptedModel([])).path}
    paths.add(sums.alternatives(ScriptedModel([]), scorer="journeyman.training.rewards:solved").path)
    sums.policies = sums.policies.model_copy(update={"agents": {"reader": "reader@2"}})
    paths.add(sums.alternatives(ScriptedModel([])).path)
    assert len(paths) == 3


def test_a_server_that_is_down_is_one_clear_line_and_what_was_measured_is_kept(sums: Any) -> None:
    sums.run()
    step = first_step(sums)
    alternatives = sums.alternatives(ScriptedModel(sums.misreads))
    alternatives.take([(step, TEACHER)])
    down = sums.alternatives(ScriptedModel([ModelError("connection refused", kind="unreachable")] * 9))
    told: list[Alternative] = []
    with pytest.raises(ServerError, match="says nothing: connection refused; run it again, what was measured is kept"):
        down.take([(step, TEACHER), (step, Replacement(seed=3, rest="recorded"))], on_alternative=told.append)
    assert [one.replacement for one in told] == [TEACHER]


def test_a_fork_that_never_comes_to_its_step_is_counted_and_no_measurement(sums: Any) -> None:
    sums.run()
    shorter = sums.crew.model_copy(update={"budget": Budget(model_calls=1)})
    alternatives = sums.alternatives(ScriptedModel(sums.right), crew=shorter)
    assert alternatives.take([(first_step(sums), TEACHER)]) == []
    assert (alternatives.astray, alternatives.left_out, read_alternatives(alternatives.path)) == (1, 0, [])


@pytest.mark.parametrize("budget", [0, -3])
def test_a_budget_of_nothing_is_refused(sums: Any, budget: int) -> None:
    with pytest.raises(ConfigError, match=f"a budget of {budget} model calls measures nothing: give --budget 1"):
        sums.alternatives(ScriptedModel([]), budget)
