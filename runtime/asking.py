"""Asking a person: the run stops at the question, is kept, and goes on with the answer in whatever process."""

from collections.abc import Sequence

from langgraph.types import interrupt

from journeyman.agents.decision import Place
from journeyman.agents.guardrails import Guarded, Guards
from journeyman.runtime.events import Asked
from journeyman.runtime.questions import Consent, Question
from journeyman.runtime.run import Run
from journeyman.runtime.steps import Steps

NOBODY = "a person would have to be asked, and this runtime keeps no runs that could wait"


def put(run: Run, questions: Sequence[Question]) -> None:
    """Stops the node at `questions`, if there are any. It begins anew when the run is taken up again."""
    if questions:
        for question in questions:
            run.emit(Asked(question=question))
        interrupt([question.model_dump(mode="json") for question in questions])


def consent(run: Run, steps: Steps, question: Question) -> Consent:
    """A person's yes or no to a question whose id names the call; stops the node where there is no word yet."""
    if run.store is None:
        return Consent(approved=False, reason=NOBODY)
    word = steps.kept(question.number).get("answer")
    if word is None:
        put(run, [question])
    return Consent.model_validate(word)


async def checked(
    run: Run,
    steps: Steps,
    place: Place,
    text: str,
    *,
    guards: Guards | None = None,
    agent: str | None = None,
    evidence: Sequence[str] = (),
) -> Guarded:
    """`text` after the guardrails of that place, and after the person whom one of them wants to be asked."""
    guarded = await (guards or run.guards).check(place, text, agent=agent, evidence=evidence)
    run.decide(guarded.decisions)
    if guarded.ask is None:
        return guarded
    question = Question(
        id=f"{steps.place}/{steps.take()}",
        kind="guardrail",
        agent=agent or run.crew.name,
        text=f"May this {place} go on? {guarded.ask}: {guarded.text}",
    )
    word = consent(run, steps, question)
    run.decide([word.decision("guardrail", place)])
    return guarded if word.approved else guarded.model_copy(update={"text": "", "blocked": word.refusal})
