"""The executor: one task carried out, kept while it goes on, and taken up again where it was left."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from journeyman.runtime.flow.attempt import Attempt
from journeyman.runtime.run.events import Ended, Event
from journeyman.runtime.run.setting import Setting
from journeyman.runtime.store.run_store import WAITING, RunRecord, RunStore
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Origin, Outcome, Task

if TYPE_CHECKING:
    from langgraph.runtime import RunControl


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Carries out the tasks of one runtime."""

    setting: Setting
    graph: Callable[[], Any]
    """The compiled graph, with the run store's checkpoints where there is one."""

    async def run(
        self,
        task: Task,
        *,
        run_id: str | None,
        origin: Origin,
        control: "RunControl | None",
        emit: Callable[[Event], None],
        shows_tokens: bool,
    ) -> Outcome:
        """A run that ended before gives back how; one that was interrupted goes on; else it is a new one."""
        attempt = Attempt(self.setting, self.graph, task, origin, control=control, emit=emit, shows_tokens=shows_tokens)
        runs = self.setting.runs
        if runs is None:
            return await attempt.carry_out(None, uuid4().hex)
        run_id = uuid4().hex if run_id is None else run_id
        async with runs.lock(run_id):
            known = await runs.get(run_id)
            if known is not None:
                known = await self._taken_up(runs, known, task)
                if known.outcome is not None and known.status not in WAITING:
                    emit(Ended(outcome=known.outcome))
                    return known.outcome
            return await attempt.carry_out(known, run_id)

    async def _taken_up(self, runs: RunStore, known: RunRecord, task: Task) -> RunRecord:
        """The record of a run that goes on; what a person said lies where the call that asked will look for it."""
        if (known.task, known.crew) != (task, self.setting.crew.name):
            raise ConfigError(f"run {known.id} is of another task or crew: give this one another run id")
        if known.status not in WAITING:
            return known
        asked = {question.id: question for question in known.pending}
        for question_id, answer in known.answers.items():
            if (question := asked.get(question_id)) is None:
                continue  # It was asked once, and is not asked any more.
            kept = (await runs.steps(known.id, question.step_key)).get(question.number, {})
            said = {"question": question.model_dump(mode="json"), "answer": answer}
            await runs.note_step(known.id, question.step_key, question.number, {**kept, **said})
        return await runs.change(known.id, partial(_going_on, known))


def _going_on(known: RunRecord, latest: RunRecord) -> RunRecord:
    """The next part of a run begins; an answer that came after `known` was read is kept for the part after it."""
    later = {question: word for question, word in latest.answers.items() if question not in known.answers}
    update = {"attempt": latest.attempt + 1, "status": "running", "pending": (), "answers": later}
    return latest.model_copy(update=update)
