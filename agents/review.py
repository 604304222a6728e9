"""Review: what is wrong with an answer before it is given. Code is asked first, a model only where a crew wants it."""

from collections.abc import Mapping

from journeyman.agents.agent import Crew
from journeyman.agents.calls import Calls
from journeyman.agents.judge import JUDGE, judge, judge_of
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.reply import UnreadableReplyError
from journeyman.agents.schedule import lost
from journeyman.agents.verify import refusal
from journeyman.traces.base import Record, Words


class Problem(Record):
    """A reason not to give an answer as it is."""

    source: str
    """`verify` for code, `judge` for the model."""
    reason: Words

    @property
    def certain(self) -> bool:
        """True where code refused the answer; a model's judgement can be wrong."""
        return self.source != JUDGE


async def review(
    crew: Crew, prompt: str, plan: Plan, reports: Mapping[str, Report], answer: str, calls: Calls | None
) -> tuple[Problem, ...]:
    """What is wrong with `answer`, nothing where it may be given; raises `ModelError`.

    `calls` are those of `judge_of(crew)`, None where there is no judge. What code refuses is not judged: it costs a
    model call and changes nothing. Where work failed and nothing came of it there is no answer to review: the failure
    itself says what is wrong.
    """
    if not answer and lost(plan, reports):
        return ()
    whole = Assignment(id="0", worker=crew.name, goal=prompt)
    if (reason := refusal(crew.verify, answer, whole)) is not None:
        return (Problem(source="verify", reason=reason),)
    agent = judge_of(crew)
    if agent is None or calls is None:
        return ()
    try:
        verdict = await judge(agent, prompt, plan, reports, answer, calls)
    except UnreadableReplyError as error:
        return (Problem(source=JUDGE, reason=f"the judge gave no usable verdict: {error}"),)
    return () if verdict.sufficient else (Problem(source=JUDGE, reason=verdict.reason),)
