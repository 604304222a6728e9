"""Any plan, any failures, any replans, any order of work: everything is done once or skipped, as the rules say."""

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest
from journeyman.agents.orchestrator import write_plan
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.replan import read_replan
from journeyman.agents.schedule import lost, next_wave, settled
from journeyman.agents.worker import write_answer
from journeyman.runtime.flow.nodes import MAX_BRANCHES
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.traces.errors import ModelError
from journeyman.traces.trace import Outcome

Values = tuple[str, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]

FAILURES = ("failed", "timeout", "truncated", "blocked", "cancelled", "over_budget")


class World:
    """What comes of each piece of work, by its id: values that nothing else gives, or the status of a failure."""

    def __init__(self, results: list[Values | str]) -> None:
        self._results = results

    def __repr__(self) -> str:
        return f"World({self._results})"

    def __getitem__(self, id: str) -> Values | str:
        place, _, branch = id.partition(".")
        came = self._results[(5 * int(place) + int(branch or 0)) % len(self._results)]
        return came if isinstance(came, str) else tuple(f"{value}{id}" for value in came)


class Rules:
    """What must become of a plan in a world, by recursion over the rules: no waves, no reports, no order of work.

    What needs a failure is skipped. A fan-out has a piece of work for each value, up to a limit, and fails where it has
    pieces and none ends well. A failure counts as what the first replacement that ended well gave, for all but what
    stands above that replacement in the same replan.
    """

    def __init__(self, plan: Plan, world: World, most: int) -> None:
        self._plan = plan
        self._world = world
        self._most = most
        self._known: dict[tuple[str, str | None], Values | None] = {}
        self.skipped = {one.id for one in plan.assignments if not self._starts(one)}
        self.pieces = {one.id: self._pieces(one) for one in plan.assignments if one.id not in self.skipped}
        """Ids of the work of each assignment that is not skipped, that over the limit too."""
        self.done = {piece for pieces in self.pieces.values() for piece in pieces[:most]}
        self.failures = {piece for pieces in self.pieces.values() for piece in pieces if self._given(piece) is None}
        """Work that ended badly and was not made good."""
        replacements = {one.id for one in plan.assignments if one.replaces is not None}
        self.lost = {id for id in self.failures | self.skipped if id not in replacements}

    def values(self, id: str, user: Assignment | None = None) -> Values | None:
        """Of an assignment, for one that uses them, or at the end; None where it did not end well."""
        key = (id, None if user is None else user.id)
        if key not in self._known:
            self._known[key] = self._values(self._assignment(id), user)
        return self._known[key]

    def goal(self, piece: str) -> str:
        place, _, branch = piece.partition(".")
        one = self._assignment(place)
        told = {need: ", ".join(self.values(need, one) or ()) for need in one.needs}
        if one.each is not None:
            told[one.each] = (self.values(one.each, one) or ())[int(branch) - 1]
        return _goal(place, [told[id] for id in one.waits_for])

    def before(self, piece: str) -> set[str]:
        """The work that must have ended before that piece begins."""
        one = self._assignment(piece.partition(".")[0])
        needed = {piece for need in one.waits_for for piece in self.pieces[need]}
        replacements = {
            other.id for other in self._plan.assignments if other.replaces in needed and self._seen(other, one)
        }
        return (needed | replacements) & self.done

    def replaceable(self) -> list[str]:
        """Failures without which nothing has gone on."""
        originals = [one.id for one in self._plan.assignments if one.replaces is None and not self._used(one.id, ())]
        return [piece for id in originals for piece in self.pieces.get(id, ()) if piece in self.failures]

    def _used(self, id: str, seen: tuple[str, ...]) -> bool:
        """Whether something has gone on with what came of it, or with what depends on that."""
        if id in seen:
            return False
        users = [one for one in self._plan.assignments if id in one.waits_for]
        depend = [place for one in users for place in (one.id, (one.replaces or "").partition(".")[0]) if place]
        return any(one.id in self.pieces for one in users) or any(self._used(place, (*seen, id)) for place in depend)

    def usable(self) -> list[int]:
        return [int(one.id) for one in self._plan.assignments if self.values(one.id) is not None]

    def _assignment(self, id: str) -> Assignment:
        return self._plan.assignments[int(id) - 1]

    def _replan(self, one: Assignment) -> int:
        """The number of the replan that it is from, 0 for the first plan."""
        return sum(start < int(one.id) for start in self._plan.replans)

    def _values(self, one: Assignment, user: Assignment | None) -> Values | None:
        if not self._starts(one):
            return None
        given = [self._given(piece, user) for piece in self._pieces(one)]
        good = [values for values in given if values is not None]
        return sum(good, ()) if good or not given else None

    def _starts(self, one: Assignment) -> bool:
        return all(self.values(need, one) is not None for need in one.waits_for)

    def _pieces(self, one: Assignment) -> list[str]:
        if one.each is None:
            return [one.id]
        return [f"{one.id}.{number}" for number, _ in enumerate(self.values(one.each, one) or (), start=1)]

    def _given(self, piece: str, user: Assignment | None = None) -> Values | None:
        """What counts as the result of a piece of work, for one that uses it or at the end."""
        own = self._world[piece]
        number = int(piece.partition(".")[2] or 1)
        if number <= self._most and not isinstance(own, str):
            return own
        stand_ins = [one for one in self._plan.assignments if one.replaces == piece and self._seen(one, user)]
        return next((values for one in stand_ins if (values := self.values(one.id)) is not None), None)

    def _seen(self, replacement: Assignment, user: Assignment | None) -> bool:
        if user is None or self._replan(replacement) > self._replan(user):
            return True
        return int(replacement.id) < int(user.id)


def _goal(place: str, told: list[str]) -> str:
    return f"{place}: {' and '.join(told)}"


def _row(place: int, needs: list[int], each: int | None) -> dict[str, Any]:
    waits_for = [*needs, each] if each and each not in needs else needs
    row: dict[str, Any] = {"worker": "worker", "goal": _goal(str(place), [f"{{{id}}}" for id in waits_for])}
    return {**row, **({"needs": needs} if needs else {}), **({"each": each} if each else {})}


def some(usable: Sequence[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(usable), unique=True, max_size=3) if usable else st.just([])


def one_of(usable: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.sampled_from(usable) if usable else st.none()


@st.composite
def plans(draw: st.DrawFn, most: int) -> Plan:
    plan = Plan(assignments=())
    rows = [
        _row(place, draw(some([*range(1, place)])), draw(one_of([*range(1, place)])))
        for place in range(1, draw(st.integers(1, most)) + 1)
    ]
    return read_replan(json.dumps({"assignments": rows}), CREW, plan, {}).model_copy(update={"replans": ()})


def worlds(letters: str) -> st.SearchStrategy[World]:
    values = st.lists(st.sampled_from(letters), unique=True).map(tuple)
    return st.lists(values | values | st.sampled_from(FAILURES), min_size=1, max_size=20).map(World)


CREW = Crew(
    name="crew",
    orchestrator=Agent(name="boss", instructions="Plan.", replans=2),
    workers=(Agent(name="worker", instructions="Work.", output="values", limits=Limits(repairs=0)),),
)


def more(draw: Draw, plan: Plan, rules: Rules) -> str:
    """A replan, as an orchestrator writes it. No row replaces what a row above it uses already."""
    rows: list[dict[str, Any]] = []
    usable, replaceable = rules.usable(), rules.replaceable()
    for place in range(len(plan.assignments) + 1, len(plan.assignments) + 1 + draw(st.integers(1, 3))):
        needs, replaces = draw(some(usable)), draw(one_of(replaceable))
        each = None if replaces else draw(one_of(usable))
        rows.append({**_row(place, needs, each), **({"replaces": replaces} if replaces else {})})
        used = {str(id) for id in [*needs, each]}
        replaceable = [id for id in replaceable if id != replaces and id.partition(".")[0] not in used]
        usable.append(place)
    return json.dumps({"assignments": rows})


def carry_out(plan: Plan, world: World, reports: dict[str, Report], most: int, draw: Draw) -> list[Assignment]:
    """Does all that the scheduler lets start, in any order; any part of a wave may be done before the next begins."""
    done: list[Assignment] = []
    for _ in range(500):
        wave = next_wave(plan, reports, max_branches=most)
        reports |= {report.assignment.id: report for report in wave.closed}
        if not wave.ready and not wave.closed:
            return done
        for one in draw(some(wave.ready)) or wave.ready:
            came = world[one.id]
            ended = {"status": came, "error": "broke"} if isinstance(came, str) else {"status": "ok", "output": [*came]}
            reports[one.id] = Report.model_validate({"assignment": one, **ended})
            done.append(one)
    raise AssertionError("it does not end")


@settings(deadline=None)
@given(plans(6), worlds("abcd"), st.integers(1, 4), st.data())
def test_everything_is_done_once_and_after_its_needs_or_skipped_for_a_failure(
    plan: Plan, world: World, most: int, data: st.DataObject
) -> None:
    reports: dict[str, Report] = {}
    done: list[Assignment] = []
    for _ in range(3):
        done += carry_out(plan, world, reports, most, data.draw)
        rules = Rules(plan, world, most)
        assert sorted(one.id for one in done) == sorted(rules.done)
        assert {one.id: one.goal for one in done} == {id: rules.goal(id) for id in rules.done}
        for number, one in enumerate(done):
            assert rules.before(one.id) <= {earlier.id for earlier in done[:number]}
        counted = settled(plan, reports)
        assert {id for id, report in counted.items() if report.status == "skipped"} == rules.skipped
        assert {report.assignment.id for report in lost(plan, reports)} == rules.lost
        plan = read_replan(more(data.draw, plan, rules), CREW, plan, reports)


def in_memory(runtime: Runtime) -> Outcome:
    return runtime.run_sync("Do it.")


def through_langgraph(runtime: Runtime) -> Outcome:
    """As within an app's own graph, or any other of langchain's runnables."""
    return asyncio.run(RunnableLambda(runtime.run).ainvoke("Do it."))


@pytest.mark.parametrize("run", [in_memory, through_langgraph])
@settings(max_examples=30, deadline=None)
@given(plans(4), worlds("ab"), st.data())
def test_a_run_does_what_the_rules_say(
    run: Callable[[Runtime], Outcome], plan: Plan, world: World, data: st.DataObject
) -> None:
    reports: dict[str, Report] = {}
    plans, wires = [plan], [write_plan(plan)]
    for _ in range(2):
        carry_out(plan, world, reports, MAX_BRANCHES, data.draw)
        wires.append(more(data.draw, plan, Rules(plan, world, MAX_BRANCHES)))
        plan = read_replan(wires[-1], CREW, plan, reports)
        plans.append(plan)
    planned, asked = count(), []

    def says(request: ModelRequest) -> str:
        if request.messages[0].content.startswith("Plan."):
            return wires[next(planned)]
        goal = request.messages[-1].content
        asked.append(goal)
        came = world[ids[goal]]
        if isinstance(came, str):
            raise ModelError("it broke")
        return write_answer([*came])

    # Whether a replan is asked for is another test's; goals are the same before and after one.
    ids = {rules.goal(id): id for rules in [Rules(one, world, MAX_BRANCHES) for one in plans] for id in rules.done}
    outcome = run(Runtime(CREW, model=ScriptedModel(says)))
    rules = Rules(plans[next(planned) - 1], world, MAX_BRANCHES)
    assert sorted(ids[goal] for goal in asked) == sorted(rules.done)
    for number, goal in enumerate(asked):
        assert rules.before(ids[goal]) <= {ids[earlier] for earlier in asked[:number]}
    assert (outcome.error is None) == (not rules.lost)
