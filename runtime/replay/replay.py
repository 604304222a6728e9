"""Replay: a recorded run again, its model calls and tool calls answered from the record, or live from some step on.

    replay = Replay(store.get("4f2a"), crew)
    runtime = Runtime(
        replay.crew, model=replay.models, policies=replay.policies, memory=replay.memory, words=replay.words
    )
    outcome = await runtime.run(replay.task, origin=replay.origin)

What comes from the record has no token ids, so nobody learns from it. Permissions, guardrails and budgets are the
crew's of today, except that nobody is asked: what a person said then, yes or no, is part of the record. What would have
to be asked besides goes no further, unless a live replay was told to approve it. A run that was cancelled is cancelled
again where its record ends. Agents that work side by side may get another part of what is left of a budget than they
did then.
"""

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import PrivateAttr

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.decision import Decision
from journeyman.agents.guards.guardrails import TOOLS, Guardrail
from journeyman.agents.guards.permissions import Permissions
from journeyman.agents.model import ModelRequest, ModelTable
from journeyman.agents.prompt import Prompt
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.replay.answers import RecordedAnswers, RecordedModels
from journeyman.runtime.replay.fork import Fork, Replacement, check_replaced
from journeyman.runtime.replay.words import BEFOREHAND, RecordedWords
from journeyman.runtime.store.memory import Memory
from journeyman.runtime.store.run_store import WAITING
from journeyman.tools.call import CallResult, call_tool
from journeyman.tools.context import Notes, ToolContext
from journeyman.tools.tool import Tool
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Sink
from journeyman.traces.errors import ConfigError
from journeyman.traces.messages import Message
from journeyman.traces.trace import Origin, Task, Trace, ending

CONTEXT = "tool context"
"""Name of a parameter that no tool can have."""


class Replay:
    """What a `Runtime` is made with to run `trace` again."""

    def __init__(
        self,
        trace: Trace,
        crew: Crew,
        *,
        fork: Fork | None = None,
        live: ModelTable | None = None,
        policies: Mapping[str, str] | None = None,
        prompts: Mapping[str, Prompt] | None = None,
        approve: bool = False,
        replacement: Replacement | None = None,
    ) -> None:
        """From `fork` on, `live` models answer and tools are used; `policies` says who then answers which agent.

        `prompts` has the words of each prompt candidate that answered in it or is to answer, by policy.
        `replacement` says how the fork's own model call is asked; the `Runtime` then needs `revise=replay.revise`.
        `approve` then says yes to every plan, text and tool call that a person would have to be asked about.
        Raises `ConfigError` where `trace` can't be run again with this crew.
        """
        short = trace.trace_id[:12]
        if trace.task is None:
            raise ConfigError(f"trace {short} has no task: its run did not end, so resume it instead")
        if trace.crew != crew.name:
            raise ConfigError(f"trace {short} is of crew {trace.crew!r} and not of {crew.name!r}: name its file")
        if any(turn.withheld not in (None, "redacted") for turn in trace.turns):
            raise ConfigError(f"trace {short} has no texts to answer with: they were not recorded")
        if (fork is None) != (live is None):
            raise ConfigError("a replay that goes on live needs both, a fork and models")
        if approve and fork is None:
            raise ConfigError("only a replay that goes on live can approve: what is recorded asks nobody")
        if fork is None and (status := ending(trace)) in (*WAITING, "unfinished"):
            raise ConfigError(f"trace {short} is {status}: its run did not end, so resume it instead")
        if replacement is not None:
            check_replaced(trace, crew, fork)
        missing = {turn.policy for turn in trace.turns if turn.weights} - {*(prompts or {})}
        if missing:
            raise ConfigError(f"trace {short} was made in the prompt of {min(missing)}, which isn't here: restore it")
        self.task: Task = trace.task
        self.origin = (trace.origin or Origin()).model_copy(update={"purpose": "replay"})
        whole = fork is None or (replacement is not None and replacement.rest == "recorded")
        before_ns = None if whole or fork is None else fork.at_ns
        replaced = None if fork is None or replacement is None else fork.span_id
        words = (prompts or {}).values()
        answers = RecordedAnswers(trace, crew, prompts=words, before_ns=before_ns, replaced=replaced)
        self._answers = answers
        self._replacement = replacement
        self.models: ModelTable = RecordedModels(answers, live)
        self.words = RecordedWords(trace, before_ns=before_ns, approve=approve)
        self.crew = _replayed(crew, answers, policies or {}, self.words, live=live is not None)
        self.policies = PolicyTable(
            agents={turn.agent: turn.policy for turn in reversed(trace.turns)},
            fallbacks=answers.stood_in,
            digests={turn.policy: turn.adapter_digest for turn in trace.turns if turn.adapter_digest is not None},
            prompts=prompts or {},
        )
        """Who answered each agent first, and goes on to; and who stood in where that one failed."""
        self.memory: Memory = _RecordedMemory(answers.earlier((crew.orchestrator or crew.workers[0]).name))

    @property
    def forked(self) -> bool:
        """Whether the run came to the call that was to be replaced."""
        return self._answers.parted

    def revise(self, request: ModelRequest) -> ModelRequest:
        """The request as it is to be made: the fork's is asked as the replacement says."""
        if self._replacement is None or not self._answers.replaces(request.messages):
            return request
        return request.model_copy(
            update={
                "policy": self._replacement.policy or request.policy,
                "temperature": self._replacement.temperature,
                "seed": self._replacement.seed,
            }
        )


class ReplaySink:
    """Hands spans on, each with the id of the trace that it repeats."""

    def __init__(self, sink: Sink, trace_id: str) -> None:
        self._sink = sink
        self._mark = {a.REPLAY_OF: trace_id}

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self._sink.append(span.model_copy(update={"attributes": {**span.attributes, **self._mark}}), sync=sync)


class _RecordedMemory(Memory):
    """What the session was when the run was recorded. Nothing is remembered of a replay."""

    def __init__(self, turns: tuple[Message, ...]) -> None:
        super().__init__()
        self._recorded = turns

    async def turns(self, task: Task) -> tuple[Message, ...]:
        return self._recorded

    def notes(self, task: Task) -> Notes | None:
        return None


class _AsGiven:
    """Parameters of a tool whose arguments are looked up as they were written."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self.context_parameter: str | None = CONTEXT

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return dict(arguments)


class _RecordedPermissions(Permissions):
    """The crew's table in a replay: whom it wants to be asked about is up to the stand-in of the tool.

    A call that never came to an end does not begin.
    """

    _tools: Mapping[str, Tool] = PrivateAttr()
    _answers: RecordedAnswers = PrivateAttr()
    _approve: bool = PrivateAttr()

    def __init__(self, crew: Crew, answers: RecordedAnswers, *, approve: bool) -> None:
        super().__init__(**dict(crew.permissions))
        self._tools = crew.tools
        self._answers = answers
        self._approve = approve

    def __bool__(self) -> bool:
        return self._approve or super().__bool__()

    def decide(self, agent: str, tool: Tool, arguments: Mapping[str, Any]) -> Decision:
        recorded = self._answers.expects(tool.name, arguments)
        decision = super().decide(agent, self._tools[tool.name], arguments)
        if decision.action != "deny" and (refusal := self._answers.refusal(tool.name, arguments)) is not None:
            # It was not made: it costs nothing, and may be asked for again.
            return decision.model_copy(update={"action": "deny", "reason": refusal})
        if decision.action != "ask":
            return decision
        reason = BEFOREHAND if self._approve and not recorded else ""
        return decision.model_copy(update={"action": "allow", "reason": reason})


def _replayed(
    crew: Crew, answers: RecordedAnswers, policies: Mapping[str, str], words: RecordedWords, *, live: bool
) -> Crew:
    """The crew with tools that answer from the record, in which nobody is asked and `policies` go before all else."""
    names = [agent.name for agent in crew.agents]
    if unknown := [name for name in policies if name not in names]:
        raise ConfigError(f"crew {crew.name!r} has no agent {unknown[0]!r}; it has: {', '.join(names)}")

    def agent(one: Agent) -> Agent:
        return one.model_copy(update={"model": policies.get(one.name, one.model)})

    return crew.model_copy(
        update={
            "orchestrator": None if crew.orchestrator is None else agent(crew.orchestrator),
            "workers": tuple(map(agent, crew.workers)),
            "tools": {name: _stand_in(tool, crew, answers, words, live=live) for name, tool in crew.tools.items()},
            "permissions": _RecordedPermissions(crew, answers, approve=words.approve),
            "guardrails": tuple(
                part for one in crew.guardrails for part in _unasked(one, refuses=live and not words.approve)
            ),
        }
    )


def _unasked(guardrail: Guardrail, *, refuses: bool) -> Iterator[Guardrail]:
    """A guardrail that asks nobody about tool calls: what was said of one is in its recorded result."""
    parts = [tuple(point for point in guardrail.at if (point in TOOLS) is tools) for tools in (False, True)]
    if guardrail.action != "ask" or not parts[1]:
        yield guardrail
        return
    if parts[0]:
        yield guardrail.model_copy(update={"at": parts[0]})
    yield guardrail.model_copy(update={"at": parts[1], "action": "block" if refuses else "warn"})


def _stand_in(tool: Tool, crew: Crew, answers: RecordedAnswers, words: RecordedWords, *, live: bool) -> Tool:
    """A tool that looks and answers like `tool`; only a live one that needs nobody's word is really called."""

    async def answered(**arguments: Any) -> CallResult:
        context: ToolContext = arguments.pop(CONTEXT)
        recorded = answers.result(tool.name, arguments)
        if recorded is not None:
            return recorded
        if not live:
            return CallResult(status="failed", content=f"the record has no such call of {tool.name}")
        permission = crew.permissions.decide(context.agent, tool, arguments)
        if permission.action == "deny":
            return CallResult(status="denied", content=f"{tool.name} was not called: {permission.reason}")
        if tool.asks or (permission.action == "ask" and not words.approve):
            words.unasked.append(f"{context.agent} calls {tool.name} with {json.dumps(arguments, ensure_ascii=False)}")
            return CallResult(status="denied", content=f"{tool.name} was not called: nobody is asked in a replay")
        return await call_tool(tool, arguments, context)

    twin = copy.copy(tool)
    twin.function = answered
    twin.arguments = _AsGiven(tool.parameters)
    twin.max_chars = sys.maxsize  # What is recorded was cut already.
    twin.timeout_s = tool.timeout_s + 1.0
    twin.approve = twin.asks = False
    return twin
