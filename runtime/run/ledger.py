"""The ledger: what a run may still spend. Every call is reserved before it is made and settled after it.

One ledger serves the whole tree of agents, so workers inherit what is left. What is reserved counts as spent until it
is settled: calls that run side by side cannot overshoot a limit together. Only a prompt that is longer than its
estimate can, by the difference.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping

from journeyman.agents.budget import Budget, Spent
from journeyman.traces.errors import ConfigError, OverBudgetError
from journeyman.traces.messages import Usage
from journeyman.traces.prices import Price, price_of


class Reservation:
    """What one model call may take, held until `settle` or `release`; a second of either does nothing."""

    def __init__(self, ledger: "Ledger", policy: str, most: Spent) -> None:
        self._ledger = ledger
        self.policy = policy
        self.most = most

    def settle(self, usage: Usage) -> Spent:
        """Counts what the call really took, in place of what was reserved, and gives it; a failed call is a call."""
        return self._ledger._settle(self, usage)

    def release(self) -> None:
        """Gives all back: the call was never made."""
        self._ledger._drop(self)


class Ledger:
    """Reserves and counts for one run, in one event loop.

    reservation = await ledger.reserve_call("base", prompt_tokens=420, max_tokens=256)
    """

    def __init__(
        self,
        budget: Budget,
        prices: Mapping[str, Price] | None = None,
        *,
        spent: Spent | None = None,
        seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`spent` and `seconds` are of the run's earlier parts, where it was interrupted and taken up again."""
        self._seconds = budget.seconds
        self._reserve = budget.reserve
        self._limits = _limits(budget)
        self._kept = {name: _kept(name, limit, budget.reserve) for name, limit in self._limits.items()}
        self._prices = prices or {}
        self._spent = spent or Spent()
        self._reserved: dict[Reservation, Spent] = {}
        self._earlier_s = seconds
        self._clock = clock
        self._started = clock()
        self._given_back = asyncio.Event()

    @property
    def spent(self) -> Spent:
        """What was settled and counted."""
        return self._spent

    @property
    def seconds(self) -> float:
        """How long the run has been at work, its earlier parts included."""
        return self._earlier_s + self._clock() - self._started

    @property
    def left(self) -> dict[str, float]:
        """What is left of each limit, its reserve included, less what is reserved for calls that run now."""
        taken = self._amounts(self._held())
        left = {name: max(limit - taken[name], 0) for name, limit in self._limits.items()}
        seconds = self.seconds_left(final=True)
        return left if seconds is None else {**left, "seconds": round(seconds, 3)}

    def seconds_left(self, *, final: bool = False) -> float | None:
        """Seconds until work must stop, never below 0; None without a limit. With `final`, until the run must end."""
        if self._seconds is None:
            return None
        return max(self._seconds * (1.0 if final else 1.0 - self._reserve) - self.seconds, 0.0)

    async def reserve_call(
        self, policy: str, prompt_tokens: int, max_tokens: int, *, final: bool = False
    ) -> Reservation:
        """Sets aside what one model call may take; raises `OverBudgetError` where that is more than what is left.

        It waits while calls that run now may still give back enough of what they reserved. `final` is for what ends a
        run: it may also use the reserve.
        """
        most = Spent()
        if self._limits:
            most = self._price(policy, Usage(input_tokens=prompt_tokens, output_tokens=max_tokens))
        self._check(most, final)
        while self._lacking(self._held(), most, final) is not None:
            await self._given_back.wait()
            self._check(most, final)
        reservation = Reservation(self, policy, most)
        self._reserved[reservation] = most
        return reservation

    def reserve_tool(self) -> Spent:
        """Counts one tool call and gives what it counted; raises `OverBudgetError` where none is left.

        What ends a run calls no tool, so nothing of this limit is kept for it.
        """
        one = Spent(tool_calls=1)
        self._check(one, final=False)
        return self.count(one)

    def count(self, spent: Spent) -> Spent:
        """Counts what is spent already, e.g. by a call whose reply was kept from before a crash."""
        self._spent += spent
        return spent

    def _settle(self, reservation: Reservation, usage: Usage) -> Spent:
        if reservation not in self._reserved:
            return Spent()
        self._drop(reservation)
        return self.count(self._price(reservation.policy, usage))

    def _drop(self, reservation: Reservation) -> None:
        if self._reserved.pop(reservation, None) is not None and self._limits:
            self._given_back.set()
            self._given_back = asyncio.Event()

    def _held(self) -> Spent:
        return sum(self._reserved.values(), self._spent) if self._limits else self._spent

    def _price(self, policy: str, usage: Usage) -> Spent:
        price = price_of(policy, self._prices)
        if price is None and "cost" in self._limits:
            unknown = f"policy {policy!r} has no price, so no budget of cost can hold it: set [traces.prices]"
            raise OverBudgetError(unknown, "cost")
        return Spent(usage=usage, model_calls=1, cost=0.0 if price is None else price.of(usage))

    def _check(self, more: Spent, final: bool) -> None:
        """Raises `OverBudgetError` where `more` cannot be had, whatever the calls that run now give back."""
        if self.seconds_left(final=final) == 0:
            raise OverBudgetError(
                f"the budget of seconds is used up: {self.seconds:,.1f} of {self._seconds:,g}", "seconds"
            )
        if (name := self._lacking(self._spent, more, final)) is None:
            return
        spent, kept = self._amounts(self._spent)[name], self._kept[name]
        held = "" if final or not kept else f", {kept:,g} are kept for the answer"
        wants = "" if name.endswith("calls") else f", the next call may take {self._amounts(more)[name]:,g}"
        words = name.replace("_", " ")
        raise OverBudgetError(
            f"the budget of {words} is used up: {spent:,g} of {self._limits[name]:,g} are spent{held}{wants}", name
        )

    def _lacking(self, taken: Spent, more: Spent, final: bool) -> str | None:
        """The first limit that `more` would exceed."""
        if not self._limits:
            return None
        was, wanted = self._amounts(taken), self._amounts(more)
        for name, limit in self._limits.items():
            usable = limit if final else limit - self._kept[name]
            if wanted[name] and was[name] + wanted[name] > usable:
                return name
        return None

    @staticmethod
    def _amounts(spent: Spent) -> dict[str, float]:
        calls = {"model_calls": spent.model_calls, "tool_calls": spent.tool_calls}
        return {"tokens": spent.usage.tokens, **calls, "cost": spent.cost}


def check_prices(budget: Budget, prices: Mapping[str, Price]) -> None:
    """Raises `ConfigError` where money is limited and no price is known: no run could begin."""
    if budget.cost is not None and not prices:
        raise ConfigError("a budget of `cost` needs prices: set [traces.prices] in journeyman.toml")


def _limits(budget: Budget) -> dict[str, float]:
    limits = {name: getattr(budget, name) for name in ("tokens", "model_calls", "tool_calls", "cost")}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _kept(name: str, limit: float, share: float) -> float:
    """The reserve of one limit; what is counted is rounded down, so that a small limit keeps none."""
    if name == "tool_calls":
        return 0
    return limit * share if name == "cost" else math.floor(limit * share + 1e-9)
