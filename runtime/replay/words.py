"""Recorded words: what a person said to the questions of a trace, given out again by what they were about."""

from pydantic import JsonValue

from journeyman.agents.decision import Decision
from journeyman.agents.plan import Plan
from journeyman.runtime.replay.answers import recorded_decisions
from journeyman.runtime.run.endings import CancelledRunError
from journeyman.runtime.store.questions import Consent, Question, about_plan
from journeyman.traces.trace import Trace, ending

BEFOREHAND = "agreed to before the replay began"


# Every run that waited for a person needs them: without the words 14 of the 64 cases of `tests/runtime/replay` part,
# and with a yes to each question still 12. Without `RecordedAnswers.refusal` 2 do: a refused call would be paid for.
class RecordedWords:
    """What a person said to each question of a trace about a plan or a text.

    A word about a text is given out once. One about a plan holds for that very plan, whenever it is made.
    """

    def __init__(self, trace: Trace, *, before_ns: int | None = None, approve: bool = False) -> None:
        """Of texts, those that were checked before `before_ns` count. `approve` says yes where there is no word."""
        said = _words(trace.decisions)
        plans = [word for word in said if word.point == "plan"]
        self._of_plans = dict(zip(_plans_asked(trace), plans, strict=False)) if plans else {}
        texts = [word for word in said if word.point != "plan"]
        self._of_run = [word for word in texts if before_ns is None or word.point == "task"]
        # The last part of work that was taken up again has all that was decided about it.
        self._of_work = {
            one.assignment: _words(one.decisions)
            for one in trace.trajectories
            if one.assignment is not None and (before_ns is None or one.ended_ns < before_ns)
        }
        self._ends = before_ns is None and ending(trace) == "cancelled"
        self.approve = approve
        self.unasked: list[str] = []
        """What a person would have been asked besides."""

    def __call__(self, question: Question) -> Consent | None:
        """None where nobody has said anything to such a question."""
        word = self._of_plans.get(question.text) if question.kind == "approve_plan" else self._of_text(question)
        if word is not None:
            return Consent(approved=word.action == "allow", reason=word.reason)
        if self._ends:
            raise CancelledRunError
        if self.approve:
            return Consent(approved=True, reason=BEFOREHAND)
        self.unasked.append(question.text)
        return None

    def _of_text(self, question: Question) -> Decision | None:
        left = self._of_run if question.assignment is None else self._of_work.get(question.assignment, [])
        point = question.step_key.rpartition(".")[2]
        word = next((word for word in left if (word.name, word.point) == (question.kind, point)), None)
        if word is not None:
            left.remove(word)
        return word


def _words(decisions: JsonValue) -> list[Decision]:
    return [word for word in recorded_decisions(decisions) if word.source == "person"]


def _plans_asked(trace: Trace) -> list[str]:
    """The questions about the trace's plans: the first one, and what it was after each replan."""
    made = [one.plan for one in sorted(trace.trajectories, key=lambda one: one.started_ns) if one.plan is not None]
    if not made:
        return []
    plan = Plan.model_validate(made[-1])
    rows = plan.assignments
    return [about_plan(Plan(assignments=rows[:size])) for size in (*plan.replans, len(rows))]
