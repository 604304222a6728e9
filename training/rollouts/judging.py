"""Judging: which of two answers to a task is better, in a model's judgement, where no scorer can tell.

Each answer of a group is compared with the next one, in both orders: a judge that prefers what it reads first prefers
nothing then. A comparison is a run of a crew of one, recorded like any other, from which nobody learns.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, Self

from journeyman.agents.agent import Agent, Crew, Limits, default_instructions
from journeyman.agents.judge import JUDGE
from journeyman.agents.model import BASE
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.traces.errors import ConfigError, ServerError, TrainingError
from journeyman.traces.trace import Origin, Outcome, Task
from journeyman.training.evaluation.evaluate import Episode, Watched
from journeyman.training.rollouts.rewards import RewardTable
from journeyman.training.rollouts.sample import Exploring

FIRST, SECOND = "first", "second"


class Answer(NamedTuple):
    trace_id: str
    text: str


class Judge:
    def __init__(self, exploring: Exploring, policy: str) -> None:
        agent = Agent(
            name=JUDGE,
            instructions=default_instructions("comparison"),
            model=policy,
            verify=(f"one_of:{FIRST}|{SECOND}",),
            limits=Limits(turns=2, tokens=32),
        )
        self._crew = Crew(name="comparison", orchestrator=None, workers=(agent,))
        self._exploring = exploring
        self._policy = policy

    @classmethod
    def of(cls, exploring: Exploring, table: RewardTable) -> Self | None:
        """The judge that the recipe asks for, if any; raises `ConfigError` for one that there is not."""
        models = exploring.workspace.config.models
        if not table.judge:
            return None
        if table.judge_policy not in (BASE, *models):
            have = ", ".join((BASE, *models))
            raise ConfigError(f"rewards.judge_policy: there is no policy {table.judge_policy!r}; have {have}")
        return cls(exploring, table.judge_policy)

    def shares(self, tasks: Sequence[Task], episodes: Sequence[Episode]) -> dict[str, float]:
        """By trace id, the share of its comparisons that each answer won; a half for one that was not decided.

        Raises `ServerError` where the judge doesn't answer, `TrainingError` where it decides nothing.
        """
        prompts = {task.id: task.prompt for task in tasks}
        answers: dict[str, list[Answer]] = defaultdict(list)
        traces = self._exploring.workspace.store.traces(ids=[episode.trace_id for episode in episodes])
        of_run = {trace.trace_id: trace.outcome for trace in traces}
        for episode in episodes:
            outcome = of_run.get(episode.trace_id)
            answers[episode.task_id].append(Answer(episode.trace_id, "" if outcome is None else outcome.answer))
        return asyncio.run(self._shares([(prompts[task_id], group) for task_id, group in answers.items()]))

    async def _shares(self, groups: Sequence[tuple[str, Sequence[Answer]]]) -> dict[str, float]:
        models, pairs = Watched(self._exploring.backend.models), _pairs(groups)
        with Recording(self._exploring.workspace, compacts=True) as recording:
            runtime = Runtime(self._crew, model=models, tracer=recording.tracer, policies=PolicyTable())
            try:
                asked = [self._preference(runtime, models, *pair) for pair in pairs]
                preferences = await asyncio.gather(*asked)
            finally:
                await models.aclose()
        decided = [preference for preference in preferences if preference is not None]
        if preferences and not decided:
            raise TrainingError(
                f"the judge {self._policy} decided none of {len(preferences)} comparisons: name a stronger one under "
                "rewards.judge_policy"
            )
        won: dict[str, list[float]] = defaultdict(list)
        for (_, one, other), preference in zip(pairs, preferences, strict=True):
            won[one.trace_id].append(0.5 if preference is None else preference)
            won[other.trace_id].append(0.5 if preference is None else 1 - preference)
        return {trace_id: sum(shares) / len(shares) for trace_id, shares in won.items()}

    async def _preference(
        self, runtime: Runtime, models: Watched, prompt: str, one: Answer, other: Answer
    ) -> float | None:
        """1 where `one` is better whichever is read first, 0 where `other` is, a half between; None where no verdict
        could be used."""
        if one.text == other.text or not (one.text and other.text):
            return 0.5 + (bool(one.text) - bool(other.text)) / 2
        orders = [(one, other, FIRST), (other, one, SECOND)]
        outcomes = await asyncio.gather(
            *(self._asked(runtime, models, prompt, first, second) for first, second, _ in orders)
        )
        verdicts = [
            float(outcome.answer.strip() == better)
            for outcome, (_, _, better) in zip(outcomes, orders, strict=True)
            if outcome.status == "ok"
        ]
        return sum(verdicts) / len(verdicts) if verdicts else None

    async def _asked(self, runtime: Runtime, models: Watched, prompt: str, first: Answer, second: Answer) -> Outcome:
        text = f"Task: {prompt}\n\nFirst answer: {first.text}\n\nSecond answer: {second.text}"
        task = Task(id=f"{first.trace_id[:12]}-{second.trace_id[:12]}", prompt=text)
        outcome = await runtime.run(task, origin=Origin(purpose="evaluation"))
        if (outage := models.outages.get(outcome.trace_id)) is not None:
            raise ServerError(
                f"the judge {self._policy} doesn't answer: {outage}; run it again once it does, "
                "what was sampled is kept"
            )
        return outcome


def _pairs(groups: Sequence[tuple[str, Sequence[Answer]]]) -> list[tuple[str, Answer, Answer]]:
    """Each answer and the next one of its group, the last one and the first."""
    return [
        (prompt, one, group[(number + 1) % len(group)])
        for prompt, group in groups
        for number, one in enumerate(group)
        if len(group) > 2 or number == 0
    ]
