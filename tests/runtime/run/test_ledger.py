"""The ledger: nothing is spent that was not reserved, and what ends a run keeps its share."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.agents.budget import Budget, Spent
from journeyman.runtime.run.ledger import Ledger, Reservation
from journeyman.traces.errors import OverBudgetError
from journeyman.traces.messages import Usage
from journeyman.traces.prices import Price

PRICES = {"base": Price(input=1.0, output=10.0)}


def used(read: int, written: int) -> Usage:
    return Usage(input_tokens=read, output_tokens=written)


async def reserved(ledger: Ledger, read: int, written: int, *, final: bool = False) -> Reservation:
    return await ledger.reserve_call("base", prompt_tokens=read, max_tokens=written, final=final)


async def test_a_call_counts_as_what_it_reserved_until_it_is_settled() -> None:
    ledger = Ledger(Budget(tokens=1000, reserve=0))
    call = await reserved(ledger, 300, 200)
    assert ledger.left == {"tokens": 500}
    assert call.settle(used(310, 20)) == Spent(usage=used(310, 20), model_calls=1)
    assert ledger.left == {"tokens": 670}


async def test_a_call_that_was_never_made_gives_all_back() -> None:
    ledger = Ledger(Budget(tokens=1000, model_calls=1, reserve=0))
    (await reserved(ledger, 300, 200)).release()
    assert ledger.left == {"tokens": 1000, "model_calls": 1}
    assert ledger.spent == Spent()


async def test_a_call_that_failed_was_a_call() -> None:
    ledger = Ledger(Budget(model_calls=1))
    (await reserved(ledger, 300, 200)).settle(Usage())
    with pytest.raises(OverBudgetError, match=r"the budget of model calls is used up: 1 of 1 are spent$"):
        await reserved(ledger, 1, 1)


async def test_settling_twice_counts_once() -> None:
    ledger = Ledger(Budget())
    call = await reserved(ledger, 1, 1)
    call.settle(used(1, 1))
    assert call.settle(used(1, 1)) == Spent()
    call.release()
    assert ledger.spent.model_calls == 1


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (
            Budget(tokens=100),
            "the budget of tokens is used up: 0 of 100 are spent, 10 are kept for the answer, .* take 110",
        ),
        (Budget(cost=0.0001), "the budget of cost is used up: 0 of 0.0001 are spent"),
    ],
)
async def test_a_call_that_may_take_more_than_is_left_is_not_made(budget: Budget, said: str) -> None:
    ledger = Ledger(budget, PRICES)
    with pytest.raises(OverBudgetError, match=said):
        await reserved(ledger, 60, 50)
    assert ledger.spent == Spent()


async def test_the_reserve_is_for_what_ends_the_run() -> None:
    ledger = Ledger(Budget(tokens=1000, model_calls=10, reserve=0.2))
    (await reserved(ledger, 700, 100)).settle(used(700, 100))
    with pytest.raises(OverBudgetError) as refused:
        await reserved(ledger, 10, 10)
    assert refused.value.limit == "tokens"
    (await reserved(ledger, 100, 100, final=True)).settle(used(100, 100))
    assert ledger.left == {"tokens": 0, "model_calls": 8}


async def test_a_small_count_keeps_no_reserve() -> None:
    ledger = Ledger(Budget(model_calls=2, reserve=0.4))
    for _ in range(2):
        (await reserved(ledger, 1, 1)).settle(used(1, 1))
    assert ledger.spent.model_calls == 2


async def test_workers_share_what_is_left() -> None:
    ledger = Ledger(Budget(model_calls=5, reserve=0))

    async def worker() -> int:
        made = 0
        while True:
            try:
                call = await reserved(ledger, 10, 10)
            except OverBudgetError:
                return made
            await asyncio.sleep(0)
            call.settle(used(10, 10))
            made += 1

    assert sum(await asyncio.gather(*(worker() for _ in range(4)))) == 5


async def test_a_call_waits_for_room_that_another_one_may_give_back() -> None:
    ledger = Ledger(Budget(tokens=1000, reserve=0))
    first = await reserved(ledger, 500, 400)
    second = asyncio.create_task(reserved(ledger, 500, 400))
    await asyncio.sleep(0.01)
    assert not second.done()
    first.settle(used(50, 10))
    (await second).release()


async def test_a_call_that_waited_in_vain_is_refused() -> None:
    ledger = Ledger(Budget(tokens=1000, reserve=0))
    first = await reserved(ledger, 500, 400)
    second = asyncio.create_task(reserved(ledger, 500, 400))
    await asyncio.sleep(0)
    first.settle(used(500, 400))
    with pytest.raises(OverBudgetError, match="900 of 1,000 are spent"):
        await second


async def test_a_waiting_call_that_is_cancelled_holds_nothing() -> None:
    ledger = Ledger(Budget(tokens=1000, reserve=0))
    first = await reserved(ledger, 500, 400)
    second = asyncio.create_task(reserved(ledger, 500, 400))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    first.release()
    assert ledger.left == {"tokens": 1000}


def test_tool_calls_are_counted_and_keep_no_reserve() -> None:
    ledger = Ledger(Budget(tool_calls=10, reserve=0.5))
    for _ in range(10):
        assert ledger.reserve_tool() == Spent(tool_calls=1)
    with pytest.raises(OverBudgetError, match="the budget of tool calls is used up"):
        ledger.reserve_tool()


async def test_time_runs_out_for_work_before_it_does_for_the_answer() -> None:
    moments: Iterator[float] = iter([0.0, 0.0, 91.0, 91.0, 91.0, 91.0, 101.0])
    ledger = Ledger(Budget(seconds=100, reserve=0.1), clock=lambda: next(moments))
    assert ledger.seconds_left() == 90.0
    with pytest.raises(OverBudgetError, match=r"the budget of seconds is used up: 91\.0 of 100"):
        await reserved(ledger, 1, 1)
    assert ledger.seconds_left(final=True) == 9.0
    (await reserved(ledger, 1, 1, final=True)).settle(used(1, 1))
    assert ledger.left == {"seconds": 0.0}


async def test_a_run_that_is_taken_up_again_goes_on_counting() -> None:
    before = Spent(usage=used(600, 100), model_calls=3, tool_calls=2)
    ledger = Ledger(Budget(tokens=1000, seconds=60, reserve=0), spent=before, seconds=50.0, clock=lambda: 7.0)
    assert ledger.left == {"tokens": 300, "seconds": 10.0}
    ledger.count(Spent(usage=used(200, 50), model_calls=1))
    assert ledger.spent.model_calls == 4
    with pytest.raises(OverBudgetError):
        await reserved(ledger, 40, 11)


async def test_money_is_counted_by_the_price_of_the_policy() -> None:
    ledger = Ledger(Budget(cost=1.0, reserve=0), PRICES)
    spent = (await reserved(ledger, 1000, 100)).settle(used(1000, 100))
    assert spent.cost == pytest.approx((1000 * 1.0 + 100 * 10.0) / 1e6)


async def test_a_policy_without_a_price_is_not_asked_where_money_is_limited() -> None:
    with pytest.raises(OverBudgetError, match="policy 'large' has no price"):
        await Ledger(Budget(cost=1.0), PRICES).reserve_call("large", 1, 1)


async def test_without_limits_all_is_counted_and_nothing_refused() -> None:
    ledger = Ledger(Budget())
    (await reserved(ledger, 10**9, 10**9)).settle(used(5, 6))
    ledger.reserve_tool()
    assert ledger.spent == Spent(usage=used(5, 6), model_calls=1, tool_calls=1)
    assert ledger.left == {}
    assert ledger.seconds_left() is None


CALLS = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 200), st.floats(0, 1), st.integers(0, 3)), max_size=24)


@given(CALLS, st.integers(1, 3000), st.integers(1, 12))
def test_no_crowd_of_calls_exceeds_a_limit(calls: list[tuple[int, int, float, int]], tokens: int, number: int) -> None:
    ledger = Ledger(Budget(tokens=tokens, model_calls=number, reserve=0.1))

    async def call(read: int, most: int, share: float, pauses: int) -> None:
        try:
            reservation = await reserved(ledger, read, most)
        except OverBudgetError:
            return
        for _ in range(pauses):
            await asyncio.sleep(0)
            assert min(ledger.left.values()) >= 0
        reservation.settle(used(read, int(most * share)))

    async def crowd() -> None:
        await asyncio.gather(*(call(*one) for one in calls))

    asyncio.run(asyncio.wait_for(crowd(), 10))
    assert ledger.spent.usage.tokens <= tokens - int(tokens * 0.1)
    assert ledger.spent.model_calls <= number
