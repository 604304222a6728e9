"""Asking a person: the run stops at the question, is kept, and goes on with the answer in whatever process."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

from journeyman.agents.decision import Decision, Point
from journeyman.agents.guards.guardrails import Guards
from journeyman.runtime.run.endings import AskedError, HaltedError
from journeyman.runtime.run.events import Asked
from journeyman.runtime.run.run import Run
from journeyman.runtime.run.steps import Steps
from journeyman.runtime.store.questions import Consent, Question
from journeyman.traces import attributes as a
from journeyman.traces.capture.tracer import Span

V = TypeVar("V")

NOBODY = "a person would have to be asked, and this runtime keeps no runs that could wait"


def put(run: Run, questions: Sequence[Question]) -> None:
    """Stops the work at `questions`, if there are any: raises `AskedError`."""
    if questions:
        for question in questions:
            run.emit(Asked(question=question))
        raise AskedError(questions)


@contextmanager
def may_wait(span: Span) -> Iterator[Span]:
    """`span` for a block that may stop at a question: it then ends as `needs_input`, which is no failure."""
    waiting: HaltedError | None = None
    with span:
        try:
            yield span
        except HaltedError as halted:
            waiting = halted
            span.set({a.STATUS: "needs_input"})
    if waiting is not None:
        raise waiting


def consent(run: Run, steps: Steps, question: Question) -> Consent | None:
    """A person's yes or no, None where nobody can be asked; `AskedError` where there is no word yet."""
    if run.store is None:
        return None if run.setting.words is None else run.setting.words(question)
    word = steps.kept(question.number).get("answer")
    if word is None:
        put(run, [question])
    return Consent.model_validate(word)


async def checked(
    run: Run,
    point: Point,
    value: V,
    *,
    guards: Guards | None = None,
    agent: str | None = None,
    assignment: str | None = None,
    evidence: Sequence[str] = (),
    decide: Callable[[Iterable[Decision]], None] | None = None,
) -> tuple[V, str | None]:
    """`value` as the guardrails of that point let it go on, and why it may not; None where it may.

    A person whom one of them wants to be asked decides about the very text that he is shown: it is not checked again.
    `decide` takes the decisions, by default the run.
    """
    guards, decide = guards or run.guards, decide or run.decide
    if not guards.watch(point):
        return value, None
    # A step key of its own, so that the numbers of all other calls stay the same whatever the guardrails say.
    steps = await run.steps(point if assignment is None else f"{assignment}.{point}")
    number = steps.take()
    if (asked := steps.kept(number).get("question")) is not None:
        question = Question.model_validate(asked)
        decide(question.decisions)
    else:
        value, guarded = await guards.check_json(point, value, agent=agent, evidence=evidence)
        decide(guarded.decisions)
        if guarded.ask is None:
            return value, guarded.blocked
        question = Question(
            id=f"{steps.step_key}/{number}",
            kind="guardrail",
            agent=agent or run.crew.name,
            assignment=assignment,
            text=f"May this {point} go on? {guarded.ask}",
            decisions=guarded.decisions,
            content=value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
        )
    word = consent(run, steps, question)
    if word is None:
        return value, f"{question.text}: {NOBODY}"
    decide([word.decision("guardrail", point)])
    shown = question.content or ""
    passed = cast(V, shown if isinstance(value, str) else json.loads(shown))
    return passed, None if word.approved else word.refusal
