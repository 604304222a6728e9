"""One run: a task on its way through the crew, and what all its parts share."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.decision import Decision
from journeyman.agents.guards.guardrails import Guards
from journeyman.agents.plan import Report
from journeyman.agents.prompt import prompt_form
from journeyman.runtime.run.events import Event
from journeyman.runtime.run.ledger import Ledger
from journeyman.runtime.run.setting import Setting
from journeyman.runtime.run.steps import Steps
from journeyman.tools.call import CallResult
from journeyman.tools.context import Notes
from journeyman.traces import attributes as a
from journeyman.traces.capture.tracer import AttributeValue, Span, Tracer
from journeyman.traces.messages import Message, as_json
from journeyman.traces.trace import Origin, Task

if TYPE_CHECKING:
    from journeyman.runtime.store.run_store import RunRecord, RunStore


@dataclass
class Once:
    """Calls of tools that are not idempotent, by a piece of work and by all that replaces it."""

    step_key: str
    """Of the work that made the first of them."""
    results: dict[str, CallResult | None] = field(default_factory=dict)
    """What came of each call; None where that is not known, or not yet."""


@dataclass(kw_only=True)
class Run:
    """What the graph's nodes share while one task is on its way."""

    setting: Setting
    record: "RunRecord"
    """What is kept of the run, as this attempt at it began: its id, task and policies."""
    guards: Guards
    ledger: Ledger
    history: tuple[Message, ...]
    """Earlier turns of the session, as the agent that the task goes to is shown them."""
    shows_tokens: bool
    """Replies are streamed, and told piece by piece."""
    emit: Callable[[Event], None]
    root: Span
    """The span under which agents work: the orchestrator's, or the workflow's in a crew without one."""
    decisions: list[Decision] = field(default_factory=list)
    over_budget: str | None = None
    """Which limit stopped work, in words."""
    once: "dict[str, Once]" = field(default_factory=dict)
    """By step key; work in place of other work shares that one's."""
    evidence: dict[str, str] = field(default_factory=dict)
    """What tools said, by the id of the call's span: what the answer may rest on."""
    offered: dict[str, str] = field(default_factory=dict)
    """By agent, the tools that it may call, as the conventions write them down."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def task(self) -> Task:
        return self.record.task

    @property
    def crew(self) -> Crew:
        return self.setting.crew

    @property
    def tracer(self) -> Tracer:
        return self.setting.tracer

    @property
    def store(self) -> "RunStore | None":
        return self.setting.runs

    @property
    def attempt(self) -> int:
        """1 where the run begins, one more each time that it is taken up again."""
        return self.record.attempt

    @cached_property
    def notes(self) -> Notes | None:
        """What tools may remember beyond the run."""
        return self.setting.memory.notes(self.task)

    @cached_property
    def attributes(self) -> dict[str, AttributeValue | None]:
        """What every span of the run says."""
        return run_attributes(self.id, self.task)

    def offers(self, agent: Agent) -> str | None:
        """What there is for an agent to call, for the record; None for one without tools."""
        if agent.tools and agent.name not in self.offered:
            tools = [{"type": "function", **self.crew.tools[name].definition} for name in agent.tools]
            self.offered[agent.name] = as_json(tools)
        return self.offered.get(agent.name)

    def form(self, agent: Agent, policy: str) -> str:
        """In which prompt form an agent asks that policy, for the record."""
        forms, prompt = self.setting.forms, self.record.policies.prompts.get(policy)
        if (agent.name, prompt) not in forms:
            forms[agent.name, prompt] = prompt_form(agent, self.crew, prompt)
        return forms[agent.name, prompt].shown(policy)

    def decide(self, decisions: Iterable[Decision]) -> None:
        """Records what was decided over the run itself; what was decided over a call is on the call's span."""
        self.decisions += decisions

    def seconds(self, agent: Agent) -> float:
        """What an agent has for a piece of work: its own limit, or what the run has left."""
        left = self.ledger.seconds_left()
        return agent.limits.seconds if left is None else min(agent.limits.seconds, left)

    def out_of_time(self, agent: Agent) -> Literal["timeout", "over_budget"]:
        """Whose time was over: the agent's, or all that the run had."""
        if self.ledger.seconds_left() != 0:
            return "timeout"
        self.over_budget = self.over_budget or f"the budget of {self.crew.budget.seconds:g} seconds is used up"
        return "over_budget"

    async def check_own(self) -> None:
        """Raises `StoreError` where somebody else has taken the run up, before what must not be done twice."""
        if self.store is not None and (record := await self.store.get(self.id)) is not None:
            record.of_part(self.attempt)

    async def take_over(self, step_key: str, tried: Sequence[str]) -> None:
        """Work in the place of what was `tried` must not do again what that has done."""
        if not tried:
            return
        once = self.once[step_key] = self.once.setdefault(tried[0], Once(tried[0]))
        if self.store is not None and self.attempt > 1:
            for earlier in tried:
                for kept in (await self.store.steps(self.id, earlier)).values():
                    if isinstance(call := kept.get("begun"), str):
                        result = kept.get("result")
                        once.results.setdefault(call, None if result is None else CallResult.model_validate(result))

    async def evidence_of(self, reports: Iterable[Report]) -> tuple[str, ...]:
        """What tools said to those who made the reports, also before an interruption."""
        if self.store is not None and self.attempt > 1:
            for report in reports:
                for kept in (await self.store.steps(self.id, report.assignment.id)).values():
                    result = kept.get("result")
                    if isinstance(result, dict) and result["status"] == "ok":
                        self.evidence.setdefault(str(kept["span_id"]), str(result["content"]))
        return tuple(self.evidence.values())

    async def steps(self, step_key: str) -> Steps:
        """What was done at one step before the run was interrupted."""
        if self.store is None:
            return Steps(step_key)
        kept = await self.store.steps(self.id, step_key) if self.attempt > 1 else {}
        return Steps(step_key, run_id=self.id, store=self.store, kept=kept)

    def chain(self, agent: Agent, goal: str) -> list[tuple[str, str]]:
        """The policies to ask for an agent's calls, in order, each with why, from the route and the fallbacks."""
        route = None if (router := self.setting.router) is None else router.choose(agent, goal, self.task)
        first, *others = self.record.policies.chain(agent, None if route is None else route.policy)
        return [(first, "" if route is None else str(route)), *((policy, "") for policy in others)]


def run_attributes(run_id: str, task: Task) -> dict[str, AttributeValue | None]:
    """What every span of a run says, so that what a crash leaves can still be told apart, and deleted."""
    return {
        a.RUN_ID: run_id,
        a.TASK_ID: task.id,
        a.TASK_FAMILY: task.family,
        a.CONVERSATION_ID: task.session,
        a.USER_ID: task.user,
    }


def origin_attributes(origin: Origin) -> dict[str, AttributeValue | None]:
    """What a run's own span says besides."""
    return {
        a.PURPOSE: origin.purpose,
        a.TASK_SET: origin.task_set,
        a.TASK_SET_DIGEST: origin.task_set_digest,
        a.JUDGED: origin.judged or None,
    }
