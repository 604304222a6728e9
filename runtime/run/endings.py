"""Endings: what stops an orchestrator's work, in the closed set of words that a run can end with."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from journeyman.agents.agent import Agent
from journeyman.agents.budget import Spent
from journeyman.agents.orchestrator import PlanError
from journeyman.runtime.run.run import Run
from journeyman.runtime.store.questions import Question
from journeyman.traces.errors import ModelError, OverBudgetError, writable
from journeyman.traces.trace import Status


class EndedError(Exception):
    """The run is over before there is an answer."""

    def __init__(self, status: Status, message: str, spent: Spent | None = None) -> None:
        super().__init__(writable(message))
        self.status: Status = status
        self.spent = spent or Spent()

    @property
    def error_type(self) -> str:
        return self.status


class HaltedError(Exception):
    """Work stops here without having failed; work beside it comes to its own end first."""


class AskedError(HaltedError):
    """A person must say something before the work can go on; it begins anew when the run is taken up again."""

    def __init__(self, questions: Sequence[Question]) -> None:
        super().__init__("; ".join(question.text for question in questions))
        self.questions = tuple(questions)


class CancelledRunError(HaltedError):
    """The run is cancelled from within."""


class OutOfTimeError(TimeoutError):
    """An agent's time is over as its record has it, whatever the clock says."""


@asynccontextmanager
async def timed(run: Run, agent: Agent, what: str) -> AsyncIterator[None]:
    """Gives the block the agent's time, or what the run has left of its own; raises `EndedError` for every failure."""
    seconds = run.seconds(agent)
    try:
        async with asyncio.timeout(seconds):
            yield
    except PlanError as error:
        raise EndedError(error.status, str(error)) from None
    except ModelError as error:
        raise EndedError("failed", str(error)) from None
    except OverBudgetError as error:
        raise EndedError("over_budget", str(error)) from None
    except TimeoutError:
        status = run.out_of_time(agent)
        raise EndedError(status, f"{agent.name} had no {what} after {seconds:g} s") from None
