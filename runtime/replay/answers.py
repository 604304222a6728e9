"""Recorded answers: what the model calls and tool calls of a trace brought, given out again to whoever asks the same.

A model call is found by its messages, without the examples that only some policies are shown; a tool call by tool and
arguments. Each is given out once; of those that are alike the earliest is first.
A run that was cancelled ends again where its record does.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, pairwise, takewhile
from operator import eq
from typing import Any, TypeVar

from pydantic import JsonValue, TypeAdapter

from journeyman.agents.agent import Crew
from journeyman.agents.decision import Decision
from journeyman.agents.model import Model, ModelReply, ModelRequest, ModelTable
from journeyman.agents.prompt import Prompt
from journeyman.runtime.run.endings import CancelledRunError, OutOfTimeError
from journeyman.tools.call import CallResult
from journeyman.traces.errors import ModelError
from journeyman.traces.messages import Message
from journeyman.traces.reports.wording import line, shortened
from journeyman.traces.trace import CUT_OFF, Trace, Turn, ending

T = TypeVar("T")

_DECISIONS = TypeAdapter(list[Decision])

BEFORE = 30
"""Characters that are shown before the place where two messages differ."""


class RecordedAnswers:
    def __init__(
        self,
        trace: Trace,
        crew: Crew,
        *,
        prompts: Iterable[Prompt] = (),
        before_ns: int | None = None,
        replaced: str | None = None,
    ) -> None:
        """Of the calls of `trace`, or of those that began before `before_ns`, whose examples are the crew's or those of
        `prompts`. What the model call of span `replaced` brought is given to nobody."""
        shown = [*(agent.examples for agent in crew.agents), *(prompt.examples for prompt in prompts)]
        self._examples = {(example.user, example.assistant) for example in chain.from_iterable(shown)}
        self._trajectories = trace.trajectories
        self._ends = before_ns is None and ending(trace) == "cancelled"
        turns = [turn for turn in trace.turns if before_ns is None or turn.started_ns < before_ns]
        self._turns = sorted(turns, key=lambda turn: turn.started_ns)
        self._late = {turn.span_id for one in trace.trajectories if one.status == "timeout" for turn in one.turns}
        # Live, what an interruption cut off is asked anew.
        kept = [turn for turn in self._turns if before_ns is None or not self._was_cut_off(turn)]
        self.parted = False
        """Whether the replaced call was made."""
        self._replaced = next((turn for turn in trace.turns if turn.span_id == replaced), None)
        if self._replaced is not None:
            self._replaced_key = self._key(self._replaced.messages)
            self._alike_before = sum(self._comes_before(turn, self._replaced) for turn in kept)
            self._next_is_live = False
            kept = [turn for turn in kept if turn is not self._replaced]
        self._turns_left = _grouped(kept, lambda turn: self._key(turn.messages))
        results = [
            (turn, result)
            for turn in trace.turns
            for result in turn.tool_results
            if before_ns is None or result.started_ns < before_ns
        ]
        self._results_left = _grouped(
            [result for _, result in results if not result.cut_off],
            lambda result: _call_key(result.tool, result.arguments),
        )
        self._late_calls = {
            _call_key(result.tool, result.arguments)
            for turn, result in results
            if result.cut_off and turn.span_id in self._late
        }

    def reply(self, request: ModelRequest) -> ModelReply | None:
        """What the recorded call brought, its failure included; None where the record has no such call left."""
        key = self._key(request.messages)
        if self._replaced is not None and self._next_is_live and key == self._replaced_key:
            self._next_is_live, self.parted = False, True
            return None
        left = self._turns_left.get(key)
        if not left:
            if self._ends and not any(self._turns_left.values()):
                raise CancelledRunError(CUT_OFF)
            return None
        turn = min(left, key=lambda one: ((one.weights or one.policy) != request.policy, self._was_cut_off(one)))
        left.remove(turn)
        if turn.response is not None:
            return _reply(turn, request)
        if turn.span_id in self._late:
            raise OutOfTimeError(CUT_OFF)
        if self._ends and turn.cut_off:
            raise CancelledRunError(CUT_OFF)
        raise ModelError(turn.error or "the recorded call brought nothing", kind="unreachable")

    def replaces(self, messages: Sequence[Message]) -> bool:
        """Whether a call that is about to be made is the replaced one; the next reply to such a call is then live.

        Calls that are alike are told apart by their order.
        """
        if self._replaced is None or self._key(messages) != self._replaced_key:
            return False
        self._alike_before -= 1
        self._next_is_live = self._alike_before == -1
        return self._next_is_live

    def result(self, tool: str, arguments: Mapping[str, Any]) -> CallResult | None:
        """How the recorded tool call ended; None where the record has no such call left."""
        left = self._results_left.get(_call_key(tool, arguments))
        if not left:
            return None
        result = left.pop(0)
        return CallResult(status=result.status, content=result.content)

    def refusal(self, tool: str, arguments: Mapping[str, Any]) -> str | None:
        """Why nobody agreed to the recorded call; None where nobody had to, somebody did, or there is none left."""
        left = self._results_left.get(_call_key(tool, arguments))
        said = (
            {(one.source, one.action) for one in recorded_decisions(left[0].decisions) if one.point == "call"}
            if left
            else ()
        )
        if not left or "ask" not in (action for _, action in said) or ("person", "allow") in said:
            return None
        return left.pop(0).content.removeprefix(f"{tool} was not called: ")

    def expects(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Whether the record still knows how such a call ended.

        Ends the agent that ran out of time in one, and the run that was cancelled in it or before it.
        """
        call = _call_key(tool, arguments)
        if self._results_left.get(call):
            return True
        if call in self._late_calls:
            raise OutOfTimeError
        if self._ends:
            raise CancelledRunError
        return False

    def parting(self, messages: Sequence[Message]) -> str:
        """Where `messages` differ from those of the recorded call that is most like them."""
        asked = self._compared(messages)
        known = [(turn, self._compared(turn.messages)) for turn in self._turns]
        if not known:
            return "it has no model calls"
        turn, nearest = max(known, key=lambda one: sum(map(eq, one[1], asked)))
        same = [*map(eq, nearest, asked)]
        position = same.index(False) if False in same else len(same)
        if position == len(nearest) == len(asked):
            return f"all calls like span {turn.span_id} of {turn.agent} were given out"
        was, now = _shown(nearest[position:], asked[position:]), _shown(asked[position:], nearest[position:])
        return f"span {turn.span_id} of {turn.agent} is most like it; there message {position + 1} is {was}, here {now}"

    def earlier(self, agent: str) -> tuple[Message, ...]:
        """What the agent was shown of the session before the task."""
        first = next((turn for turn in self._turns if turn.agent == agent), None)
        return () if first is None else tuple(self._compared(first.messages)[1:-1])

    @property
    def stood_in(self) -> dict[str, tuple[str, ...]]:
        """By agent, the policies that were asked the same once another one had failed."""
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for trajectory in self._trajectories:
            for failed, turn in pairwise(trajectory.turns):
                if failed.response is None and turn.policy != failed.policy:
                    found[turn.agent][turn.policy] = None
        return {agent: tuple(policies) for agent, policies in found.items()}

    def _was_cut_off(self, turn: Turn) -> bool:
        """Whether an interruption ended the call, so that it was made again: the one that came to an end counts."""
        return turn.cut_off and turn.span_id not in self._late

    def _comes_before(self, turn: Turn, other: Turn) -> bool:
        """Whether `turn` began before `other`, which is asked alike."""
        return turn.started_ns < other.started_ns and self._key(turn.messages) == self._key(other.messages)

    def _key(self, messages: Sequence[Message]) -> str:
        return json.dumps([message.model_dump() for message in self._compared(messages)])

    def _compared(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages without the examples behind the first one."""
        rest = messages[1:]
        while len(rest) > 1 and (rest[0].content, rest[1].content) in self._examples:
            rest = rest[2:]
        return (*messages[:1], *rest)


class RecordedModels(ModelTable):
    """Every policy's answers from the record; what is not there is asked of `live`, or ends the call."""

    def __init__(self, answers: RecordedAnswers, live: ModelTable | None = None) -> None:
        super().__init__(_RecordedModel(answers, None))
        self._answers = answers
        self._live = live

    def __getitem__(self, policy: str) -> Model:
        return _RecordedModel(self._answers, None if self._live is None else self._live[policy])

    def __contains__(self, policy: object) -> bool:
        return self._live is not None and policy in self._live

    async def aclose(self) -> None:
        if self._live is not None:
            await self._live.aclose()


class _RecordedModel:
    demonstrates = False

    def __init__(self, answers: RecordedAnswers, live: Model | None) -> None:
        self._answers = answers
        self._live = live

    @property
    def provider(self) -> str:
        return "replay" if self._live is None else self._live.provider

    async def complete(self, request: ModelRequest) -> ModelReply:
        reply = self._answers.reply(request)
        if reply is not None:
            return reply
        if self._live is not None:
            return await self._live.complete(request)
        raise ModelError(f"the replay left the record: {self._answers.parting(request.messages)}", kind="unusable")

    async def aclose(self) -> None:
        """`RecordedModels` closes what is live."""


def _reply(turn: Turn, request: ModelRequest) -> ModelReply:
    assert turn.response is not None
    return ModelReply(
        id=f"replay-{turn.span_id}",
        model=turn.served_by or turn.policy,
        content=turn.response.content,
        tool_calls=turn.response.tool_calls,
        unreadable=turn.error if request.tools and not turn.response.tool_calls else None,
        finish_reason=turn.finish_reason or "stop",
        usage=turn.usage,
    )


def recorded_decisions(decisions: JsonValue) -> list[Decision]:
    return _DECISIONS.validate_python(decisions or ())


def _grouped(calls: Sequence[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = defaultdict(list)
    for call in calls:
        found[key(call)].append(call)
    return dict(found)


def _call_key(tool: str, arguments: Mapping[str, Any]) -> str:
    return json.dumps([tool, arguments], sort_keys=True)


def _shown(messages: Sequence[Message], others: Sequence[Message]) -> str:
    """The first of `messages`, from a little before it differs from the first of `others`."""
    if not messages:
        return "missing"
    text = line(messages[0].content)
    other = line(others[0].content) if others else ""
    same = sum(1 for _ in takewhile(lambda pair: eq(*pair), zip(text, other, strict=False)))
    start = max(0, same - BEFORE)
    return repr("…" * bool(start) + shortened(text[start:]))
