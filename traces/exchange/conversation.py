"""A conversation that another program recorded, and the spans that it would have left here.

Its replies were sampled by no server of ours, so they have no token ids: they are demonstrations, learned from as text.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

from pydantic import Field, FiniteFloat, JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.sent import Sent
from journeyman.traces.labels import Label
from journeyman.traces.messages import Message, Usage, reply_attribute, write_result
from journeyman.traces.trace import Outcome, Task

IMPORTED = "imported"
"""The workflow and the source of what was imported, and the policy and provider of a reply whose log names none."""

STEP_NS = 1_000_000
"""A chat log seldom has times: its messages are a millisecond apart."""


class Entry(Record):
    """One message, with what the log knows of it."""

    message: Message
    agent: str | None = None
    """Of a reply: who gave it, where the log says so."""
    model: str | None = None
    provider: str | None = None
    response_id: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    demonstration: bool = True
    """False for a reply that is not to be learned from (`weight` 0 in files for fine-tuning)."""
    tool: str | None = None
    """Of a tool's result: the tool's name, where the log says so."""
    failed: bool = False


class Conversation(Record):
    entries: tuple[Entry, ...] = Field(min_length=1)
    id: str | None = None
    model: str | None = None
    """Of the replies that name none."""
    started_ns: int | None = None
    session: str | None = None
    user: str | None = None
    tools: tuple[JsonValue, ...] = ()
    """Definitions in the conventions' shape."""
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    scores: dict[str, bool | FiniteFloat | str] = Field(default_factory=dict)
    """What the log says of the conversation, by the name of the label."""


class Imported(NamedTuple):
    """One conversation as a trace."""

    spans: Iterable[SpanRecord]
    """Made while they are gone through: each later one has a longer prompt, and together they may not fit in memory."""
    labels: tuple[Label, ...]

    def changed(self, change: Callable[[SpanRecord], SpanRecord]) -> "Imported":
        """The same with another of each span, made while they are gone through as well."""
        return self._replace(spans=_Changed(self.spans, change))


class _Changed:
    def __init__(self, spans: Iterable[SpanRecord], change: Callable[[SpanRecord], SpanRecord]) -> None:
        self._spans = spans
        self._change = change

    def __iter__(self) -> Iterator[SpanRecord]:
        return map(self._change, self._spans)


def import_conversation(talk: Conversation, *, agent: str, family: str, now_ns: int) -> Imported:
    """The conversation as a run: a workflow, an agent for each name, a model call for each reply, and the tool calls.

    `agent` and `family` are for what names none, `now_ns` is its time where the log has none. Ids come from the
    contents alone, so that the same conversation always is the same trace.
    """
    writer = _Writer(talk, agent, family, now_ns)
    labels = tuple(
        Label(
            trace_id=writer.trace_id,
            name=name,
            source=IMPORTED,
            source_type="human" if name == "rating" else "code",
            value=value,
        )
        for name, value in talk.scores.items()
    )
    return Imported(spans=writer, labels=labels)


class _Writer:
    def __init__(self, talk: Conversation, agent: str, family: str, now_ns: int) -> None:
        self._talk = talk
        self._agent = agent
        self._family = family
        self._started_ns = now_ns if talk.started_ns is None else talk.started_ns
        self.trace_id = _trace_id(talk, agent, family)
        self._task_id = talk.id or self.trace_id[:12]
        self._sent = Sent()
        self._common: dict[str, JsonValue | None] = {
            a.TASK_ID: self._task_id,
            a.TASK_FAMILY: family,
            a.CONVERSATION_ID: talk.session,
            a.USER_ID: talk.user,
        }

    def __iter__(self) -> Iterator[SpanRecord]:
        yield self._workflow()
        speakers = self._speakers()
        for name in dict.fromkeys(speakers.values()):
            yield self._agent_span(name, [place for place, speaker in speakers.items() if speaker == name])
        for place, speaker in speakers.items():
            entry = self._talk.entries[place]
            write = self._chat if entry.message.role == "assistant" else self._tool
            yield write(place, entry, speaker)

    def _speakers(self) -> dict[int, str]:
        """Whose work each reply and each tool's result is, by place."""
        speakers: dict[int, str] = {}
        speaker = ""
        for place, entry in enumerate(self._talk.entries):
            if entry.message.role == "assistant":
                speakers[place] = speaker = entry.agent or self._agent
            elif entry.message.role == "tool" and speaker:
                speakers[place] = speaker
        return speakers

    def _workflow(self) -> SpanRecord:
        talk, entries = self._talk, self._talk.entries
        asked = next((entry.message.content for entry in entries if entry.message.role == "user"), "")
        replies = [entry for entry in entries if entry.message.role == "assistant"]
        task = Task(
            id=self._task_id,
            prompt=asked,
            family=self._family,
            metadata=talk.metadata,
            session=talk.session,
            user=talk.user,
        )
        outcome = Outcome(
            task_id=task.id,
            trace_id=self.trace_id,
            status="truncated" if replies[-1].finish_reason == "length" else "ok",
            answer=replies[-1].message.content,
            usage=sum((reply.usage for reply in replies if reply.usage), Usage()),
            model_calls=len(replies),
            tool_calls=sum(entry.message.role == "tool" for entry in entries),
            seconds=len(entries) * STEP_NS / 1e9,
        )
        attributes: dict[str, JsonValue | None] = {
            a.OPERATION: "invoke_workflow",
            a.WORKFLOW_NAME: IMPORTED,
            a.TASK: task.model_dump_json(),
            a.OUTCOME: outcome.model_dump_json(),
            a.STATUS: outcome.status,
        }
        return self._span("workflow", None, f"invoke_workflow {IMPORTED}", 0, len(entries), attributes)

    def _agent_span(self, name: str, places: list[int]) -> SpanRecord:
        last = max((place for place, entry in enumerate(self._talk.entries) if self._speaks(entry, name)), default=0)
        reply = self._talk.entries[last]
        attributes: dict[str, JsonValue | None] = {
            a.OPERATION: "invoke_agent",
            a.AGENT_NAME: name,
            a.STATUS: "truncated" if reply.finish_reason == "length" else "ok",
            a.OUTPUT: json.dumps(reply.message.content, ensure_ascii=False),
        }
        return self._span(f"agent {name}", "workflow", f"invoke_agent {name}", places[0], places[-1] + 1, attributes)

    def _speaks(self, entry: Entry, name: str) -> bool:
        return entry.message.role == "assistant" and (entry.agent or self._agent) == name

    def _chat(self, place: int, entry: Entry, agent: str) -> SpanRecord:
        policy = entry.model or self._talk.model or IMPORTED
        before = tuple(known.message for known in self._talk.entries[:place])
        attributes: dict[str, JsonValue | None] = {
            a.OPERATION: "chat",
            a.PROVIDER: entry.provider or IMPORTED,
            a.AGENT_NAME: agent,
            a.REQUEST_MODEL: policy,
            a.RESPONSE_MODEL: policy,
            a.RESPONSE_ID: entry.response_id,
            a.FINISH_REASONS: [finish_reason := entry.finish_reason or "stop"],
            **(_tokens(entry.usage) if entry.usage else {}),
            a.TOOL_DEFINITIONS: json.dumps(self._talk.tools, ensure_ascii=False) if self._talk.tools else None,
            a.DEMONSTRATION: entry.demonstration or None,
            **self._sent.messages(before),
            a.OUTPUT_MESSAGES: reply_attribute(entry.message, finish_reason),
        }
        return self._span(f"chat {place}", f"agent {agent}", f"chat {policy}", place, place + 1, attributes)

    def _tool(self, place: int, entry: Entry, agent: str) -> SpanRecord:
        asked_by, arguments = self._call(place, entry)
        name = entry.tool or "tool"
        attributes: dict[str, JsonValue | None] = {
            a.OPERATION: "execute_tool",
            a.AGENT_NAME: agent,
            a.TOOL_NAME: name,
            a.TOOL_TYPE: "function",
            a.TOOL_CALL_ID: None if asked_by is None else self._span_id(f"chat {asked_by}"),
            a.TOOL_CALL_ARGUMENTS: json.dumps(arguments, ensure_ascii=False),
            a.TOOL_CALL_RESULT: None if entry.failed else write_result(entry.message.content),
            a.TOOL_STATUS: "failed" if entry.failed else "ok",
            a.ERROR_TYPE: "failed" if entry.failed else None,
            a.ERROR: entry.message.content if entry.failed else None,
        }
        span = self._span(f"tool {place}", f"agent {agent}", f"execute_tool {name}", place, place + 1, attributes)
        return span.model_copy(update={"status": "error"}) if entry.failed else span

    def _call(self, place: int, entry: Entry) -> tuple[int | None, dict[str, JsonValue]]:
        """The call that a tool's result answers: where it was asked for, and the arguments."""
        for earlier in range(place - 1, -1, -1):
            for call in self._talk.entries[earlier].message.tool_calls:
                if call.id == entry.message.tool_call_id:
                    return earlier, call.arguments
        return None, {}

    def _span(
        self,
        key: str,
        parent: str | None,
        name: str,
        first: int,
        last: int,
        attributes: dict[str, JsonValue | None],
    ) -> SpanRecord:
        return SpanRecord(
            trace_id=self.trace_id,
            span_id=self._span_id(key),
            parent_id=None if parent is None else self._span_id(parent),
            name=name,
            kind="client" if name.startswith("chat ") else "internal",
            start_ns=self._started_ns + first * STEP_NS,
            end_ns=self._started_ns + last * STEP_NS,
            status="ok",
            attributes={name: value for name, value in (self._common | attributes).items() if value is not None},
        )

    def _span_id(self, key: str) -> str:
        return _digest(f"{self.trace_id} {key}")[:16]


def _tokens(usage: Usage) -> dict[str, JsonValue]:
    counts = (usage.input_tokens, usage.output_tokens, usage.cached_tokens)
    return dict(zip((a.INPUT_TOKENS, a.OUTPUT_TOKENS, a.CACHED_TOKENS), counts, strict=True))


def _trace_id(talk: Conversation, agent: str, family: str) -> str:
    """What was said by whom: a score or metadata that came later do not make it another conversation."""
    said = [
        [entry.agent, entry.model, entry.message.model_dump(mode="json", exclude_defaults=True)]
        for entry in talk.entries
    ]
    return _digest(json.dumps([talk.id, talk.model, talk.started_ns, agent, family, said], sort_keys=True))[:32]


def _digest(text: str) -> str:
    # Half a surrogate pair, which a model can write, has no form in UTF-8.
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
