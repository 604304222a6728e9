"""What teaching costs: reckoned before it begins, held to a limit while it goes on."""

import asyncio

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.prices import Price
from journeyman.traces.trace import Task
from journeyman.training.evaluation.evaluate import Episode
from journeyman.training.improve.spending import Estimate, Limit, Purse, estimate

CREW = Crew(name="lone", orchestrator=None, workers=(Agent(name="clerk", instructions="Count the moons."),))
TASKS = [Task(id=f"q{number}", prompt="How many?") for number in range(4)]
BIG = PolicyTable(agents={"clerk": "big"})
PRICES = {"big": Price(input=1e6, output=2e6)}


def likely(*, tokens: float = 10.0, cost: float = 1.0, recorded: int = 3) -> Estimate:
    return Estimate(runs=4, tokens_per_run=tokens, cost_per_run=cost, unpriced=(), recorded=recorded)


def episode(task: Task, cost: float = 1.0, tokens: int = 10) -> Episode:
    return Episode(
        task_id=task.id,
        score=1.0,
        status="ok",
        input_tokens=tokens,
        output_tokens=0,
        model_calls=1,
        seconds=1.0,
        trace_id="t",
        cost=cost,
    )


async def begun(purse: Purse, cost: float) -> list[str]:
    """Which tasks run, all asked for at once."""
    ran: list[str] = []

    async def run(task: Task) -> None:
        if await purse.may_begin(task):
            await asyncio.sleep(0)
            ran.append(task.id)
            purse.ended(episode(task, cost))

    await asyncio.gather(*map(run, TASKS))
    return ran


def test_what_is_recorded_of_the_crew_says_what_a_run_costs(workspace: Workspace) -> None:
    guess = estimate(workspace.store, CREW, TASKS, BIG, PRICES, runs=4)
    assert guess.recorded == 0 and guess.tokens > 4 * CREW.workers[0].limits.tokens / 2
    with Recording(workspace) as recording:
        runtime = Runtime(CREW, model=ScriptedModel(lambda _: '{"answer": "2"}'), tracer=recording.tracer)
        usage = [runtime.run_sync(task).usage for task in TASKS[:2]]
    known = estimate(workspace.store, CREW, TASKS, BIG, PRICES, runs=4)
    assert (known.recorded, known.tokens) == (2, 2 * sum(used.tokens for used in usage))
    assert known.cost == 2 * sum(used.input_tokens + 2 * used.output_tokens for used in usage)


def test_a_policy_without_a_price_is_named_and_no_money_can_be_held_to_it(workspace: Workspace) -> None:
    expected = estimate(workspace.store, CREW, TASKS, BIG, {}, runs=4)
    assert (expected.unpriced, expected.cost) == (("big",), 0)
    with pytest.raises(ConfigError, match=r"'big', which has no price: set \[traces.prices.big\]"):
        Purse(Limit(cost=1.0), expected)
    Purse(Limit(tokens=1), expected)


async def test_runs_at_once_never_begin_beyond_what_is_left() -> None:
    purse = Purse(Limit(cost=2.5), likely(cost=1.0))
    assert await begun(purse, cost=1.0) == ["q0", "q1"]
    assert purse.used_up == "the budget of money is used up: 2 of 2.5 are spent, and a run may take 1"


async def test_a_run_waits_for_what_others_may_give_back() -> None:
    assert len(await begun(Purse(Limit(cost=2.5), likely(cost=1.0)), cost=0.5)) == 4


async def test_a_guess_that_is_far_too_high_stops_nothing_and_one_run_goes_first() -> None:
    purse = Purse(Limit(tokens=45), likely(tokens=1000.0, recorded=0))
    assert await begun(purse, cost=0.0) == ["q0", "q1", "q2", "q3"]
    dear = Purse(Limit(tokens=5), likely(tokens=1.0, recorded=0))
    assert await begun(dear, cost=0.0) == ["q0"]


async def test_without_a_limit_nothing_waits() -> None:
    purse = Purse(Limit(), likely(recorded=0))
    assert [await purse.may_begin(task) for task in TASKS] == [True] * 4
