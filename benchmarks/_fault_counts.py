"""What came of runs that met faults: what each told of itself, and the figures over all of them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from _fault_cases import PLANNED, Case
from _faults import BAD_HISTORY, MODEL_FAULTS, REPLY_FAULTS, fact_of, fault_of, step_of

from journeyman.agents.plan import Plan, Report
from journeyman.runtime.run.events import Ended, Event, PlanMade, ReplyBroken, ReportFiled, Token, WorkerStarted
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Span, Tracer
from journeyman.traces.messages import read_reply
from journeyman.traces.trace import Outcome


class Spans(Tracer):
    """Counts the spans that were begun and have not come to the record, and keeps what was said in them."""

    def __init__(self) -> None:
        super().__init__(self)
        self.open = 0
        self.said: dict[str, str] = {}
        """The text of each reply, by the span of its call."""
        self.bad_histories: list[str] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.open -= 1
        if (reply := read_reply(span.attributes)) is not None:
            self.said[span.span_id] = reply.content
        if span.attributes.get(a.OPERATION) == "chat" and BAD_HISTORY in (told := str(span.attributes.get(a.ERROR))):
            self.bad_histories.append(told)

    def span(self, name: str, **options: Any) -> Span:
        self.open += 1
        return super().span(name, **options)


@dataclass
class Seen:
    """What one run told of itself."""

    plan: Plan | None = None
    started: list[tuple[str, str]] = field(default_factory=list)
    """Steps that a worker began with, each behind that worker's name."""
    reports: list[Report] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    """The pieces of each reply together, by its call, as whoever watches has them."""
    taken_back: int = 0
    """Replies that broke off after pieces of them were shown."""
    outcome: Outcome | None = None
    raised: str | None = None
    left: bool = False
    """Whoever asked went away."""

    def take(self, event: Event) -> None:
        match event:
            case PlanMade():
                self.plan = event.plan
            case WorkerStarted() if event.assignment.goal.startswith("Find"):
                self.started.append((event.assignment.worker, step_of(event.assignment.goal)))
            case ReportFiled():
                self.reports.append(event.report)
            case Token():
                self.shown[event.call] = self.shown.get(event.call, "") + event.text
            case ReplyBroken():
                self.shown[event.call] = ""
                self.taken_back += 1
            case Ended():
                self.outcome = event.outcome

    @property
    def found(self) -> set[str]:
        return {value for report in self.reports for value in report.values}

    def dropped(self) -> set[str]:
        """Facts of assignments that nothing waits for, which are not in the answer."""
        leaves = None if self.plan is None else {leaf.id for leaf in self.plan.leaves}
        answer = "" if self.outcome is None else self.outcome.answer
        ended = [one for one in self.reports if leaves is None or _stands_for(one) in leaves]
        return {value for report in ended for value in report.values if value not in answer}


@dataclass
class Counts:
    """The figures of the result; those from `untyped_outcomes` to `tasks_left_behind` ought to be 0."""

    runs: int = 0
    faults: int = 0
    """Steps and plans that were begun and had a fault, each counted once however often it came."""
    untyped_outcomes: int = 0
    sibling_work_lost: int = 0
    error_text_in_answers: int = 0
    duplicate_side_effects: int = 0
    open_spans: int = 0
    wrong_texts: int = 0
    """Replies whose pieces, as whoever watched has them in the end, are not the reply that was recorded."""
    bad_histories: int = 0
    """Requests with messages that a strict server or chat template would refuse."""
    tasks_left_behind: int = 0
    by_fault: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    recovered: int = 0
    """Steps with a fault whose fact was found all the same."""
    streamed: int = 0
    """Runs whose replies were shown piece by piece."""
    taken_back: int = 0
    """Replies of those that broke off after pieces of them were shown."""
    wrong: list[str] = field(default_factory=list)

    def add(self, case: Case, seen: Seen, spans: Spans) -> None:
        self.runs += 1
        self.streamed += case.tokens
        self.taken_back += seen.taken_back
        faults = _met(case, seen)
        self.faults += len(faults)
        self.by_fault.update(faults)
        faulty = {fact_of(step) for _, step in seen.started if fault_of(step)[0]}
        self.recovered += len(faulty & seen.found)
        if seen.outcome is None:
            self._add_unended(case, seen)
            return
        self.statuses[seen.outcome.status] += 1
        lost = (case.healthy - seen.found) | seen.dropped()
        self._wrong("sibling_work_lost", len(lost), case, seen.outcome.error or "")
        self._wrong("error_text_in_answers", 0 if _clean(case, seen.outcome.answer) else 1, case, seen.outcome.answer)
        wrong = [text for call, text in seen.shown.items() if text != spans.said.get(call, "")]
        self._wrong("wrong_texts", len(wrong), case, repr(wrong))

    def add_all(self, effects: Counter[str], spans: Spans) -> None:
        """What can be counted only after all runs of a round; `effects` is how often each step was booked."""
        twice = {step: times for step, times in effects.items() if times > 1}
        self.duplicate_side_effects += sum(twice.values()) - len(twice)
        self.wrong += [f"duplicate_side_effects {step}: {times} times" for step, times in twice.items()]
        self.bad_histories += len(spans.bad_histories)
        self.wrong += [f"bad_histories {told[:300]}" for told in spans.bad_histories]
        self.open_spans += spans.open

    def _add_unended(self, case: Case, seen: Seen) -> None:
        cancelled = case.cancel_s is not None and seen.raised == "CancelledError"
        who = "left by its caller" if seen.left else "cancelled by its caller" if cancelled else "none"
        self.statuses[who] += 1
        self._wrong("untyped_outcomes", 0 if cancelled or seen.left else 1, case, seen.raised or "no outcome")

    def _wrong(self, key: str, count: int, case: Case, detail: str) -> None:
        setattr(self, key, getattr(self, key) + count)
        if count:
            self.wrong.append(f"{key} {detail[:300]} <- {case.prompt[:300]!r}")


def _stands_for(report: Report) -> str:
    """The number of the assignment in whose place its output is used."""
    return (report.assignment.replaces or report.assignment.id).partition(".")[0]


def _met(case: Case, seen: Seen) -> list[str]:
    """Faults of what was begun, by name."""
    named = [_shown_name(fault_of(step)[0], worker, case) for worker, step in seen.started if fault_of(step)[0]]
    if case.crew == PLANNED and (plan := fault_of(case.prompt.split(" {")[0])[0]):
        named.append(f"plan_{plan}")
    if case.cancel_s is not None:
        named.append("run_cancelled")
    return [*named, "consumer_left"] if seen.left else named


def _shown_name(fault: str, worker: str, case: Case) -> str:
    if fault in REPLY_FAULTS and "native" in worker:
        return f"native_{fault}"
    return f"streamed_{fault}" if fault in MODEL_FAULTS and case.tokens else fault


def _clean(case: Case, answer: str) -> bool:
    """Whether each part of the answer is a fact of this case, or several, after the value that it is for."""
    values = {step.partition("/")[2] for step in case.steps}
    for part in answer.split("; ") if answer else []:
        value, _, facts = part.rpartition(": ")
        if value not in {"", *values} or not case.facts.issuperset(facts.split(", ")):
            return False
    return True
