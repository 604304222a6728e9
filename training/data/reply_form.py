"""The form of a reply: whether what a person wrote for an agent of ours is what that agent could be understood by."""

import json
from collections.abc import Iterator
from typing import Literal, NamedTuple

from journeyman.agents.agent import MAX_ASSIGNMENTS, Agent
from journeyman.agents.judge import read_verdict
from journeyman.agents.model import ModelReply
from journeyman.agents.native import NativeForm
from journeyman.agents.orchestrator import read_rows
from journeyman.agents.reply import UnreadableReplyError
from journeyman.agents.turn import Answering, Calling
from journeyman.agents.worker import JsonForm, write_answer
from journeyman.tools.tool import Tool
from journeyman.traces.messages import NotForTrainingError, Usage, learnable_messages

Output = Literal["text", "values"]

_ROW = {"worker", "goal"}
_MORE = {"needs", "each", "replaces"}
_MOST_CALLS = 16


class ReplyForm(NamedTuple):
    """How an agent was asked for one reply, as far as the record says it: it doesn't hold the crew."""

    role: Literal["plan", "verdict", "work"]
    written: bool
    """Whether the reply was to be JSON under a schema; else it is text, and calls are in the model's template."""
    tools: tuple[str, ...] = ()
    several: bool = False
    """Whether it may list several calls."""
    outputs: tuple[Output, ...] = ("text", "values")
    """What its answer may be."""

    def check(self, text: str) -> None:
        """Raises `NotForTrainingError`, with a reason fit for counting, where the agent couldn't have said `text`."""
        try:
            self._read(text)
        except UnreadableReplyError:
            raise NotForTrainingError("an edit that isn't in the form of the agent's replies") from None

    def answer(self, text: str) -> str:
        """The reply that gives `text` as the answer; raises like `check`. One that is in the form already stays."""
        if self.role != "work" or not self.written:
            self.check(text)
            return text
        try:
            if isinstance(self._read(text), Answering):
                return text
        except UnreadableReplyError:
            pass
        # How a text was meant as several values, only a reply in the agent's own form can tell.
        if self.outputs == ("text",):
            return write_answer(text)
        raise NotForTrainingError("an edited answer of several values: edit the span of its model call")

    def _read(self, text: str) -> Calling | Answering | None:
        if self.role == "verdict":
            read_verdict(text)
            return None
        if self.role == "plan":
            _read_plan(text)
            return None
        *others, last = self._work_forms()
        for form in others:
            try:
                return _read_work(form, text)
            except UnreadableReplyError:
                continue
        return _read_work(last, text)

    def _work_forms(self) -> Iterator[JsonForm | NativeForm]:
        tools = {name: Tool(_nothing, name=name, description="") for name in self.tools}
        for output in self.outputs:
            agent = Agent(
                name="agent", instructions="", output=output, parallel_calls=_MOST_CALLS if self.several else 1
            )
            yield JsonForm(agent, tools) if self.written else NativeForm(agent, tools)


def lists_calls(output_messages: str | None) -> bool:
    """Whether the reply that was given is a list, as of an agent that may make several calls at once."""
    try:
        reply = next(learnable_messages(output_messages), None)
        return reply is not None and isinstance(json.loads(reply["content"]), list)
    except ValueError:
        return False


def _read_work(form: JsonForm | NativeForm, text: str) -> Calling | Answering:
    reply = ModelReply(id="", model="", content=text, finish_reason="stop", usage=Usage())
    return form.read(reply, first=False, last=False)


def _read_plan(text: str) -> None:
    for row in read_rows(text, 0, MAX_ASSIGNMENTS):
        if not isinstance(row, dict) or not _ROW <= row.keys() <= _ROW | _MORE:
            raise UnreadableReplyError("an assignment has a worker and a goal")
        if not all(isinstance(row[key], str) and row[key].strip() for key in _ROW):
            raise UnreadableReplyError("a worker and a goal are texts")


def _nothing() -> str:
    """Stands for a tool whose name alone counts."""
    return ""
