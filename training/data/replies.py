"""Replies: what an agent said, each in the prompt that the agent is shown now, or why nobody may learn from it."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from journeyman.traces.messages import NotForTrainingError
from journeyman.training.data.admission import Admission, Learnable
from journeyman.training.data.source import Source
from journeyman.training.data.student import Prompt, Student, Tools
from journeyman.training.data.turns import MinedTurn, digest_texts

UNREADABLE = "messages not readable"


class Reply(NamedTuple):
    """A turn that may be learned from, as far as it was read."""

    turn: MinedTurn
    content: str
    tool_calls: Any
    """None or empty where it called nothing."""
    tools: Tools
    """What may be called."""
    system: str | None
    """The instructions that were in sight."""
    asked: tuple[str | None, ...]
    """What tells its prompt from another one."""
    shown: Prompt | None
    """The student's prompt, for a demonstration; None where it is the turn's own."""
    digest: bytes
    """Equal for turns that give the same row."""

    @property
    def prompt_digest(self) -> bytes:
        """Equal for turns that were shown the same; of what a server sampled, in its own tokens too."""
        return digest_texts((*(self.turn.ids or ("",))[:1], *self.asked))

    @property
    def misformed(self) -> str | None:
        """Why nobody may imitate it, whatever came of it: JSON was asked for."""
        if self.turn.output_type != "json" or self.tool_calls:
            return None
        try:
            from_json(self.content)
        except ValueError:
            return "a reply that isn't the JSON that was asked for"
        return None

    @property
    def written(self) -> dict[str, str | None]:
        """Its token ids and those of its prompt, as JSON for `plain_line`."""
        prompt, ids = self.turn.ids or (None, None)
        return {"prompt_token_ids": prompt, "token_ids": ids}

    def fields(self, messages: Prompt, form: str) -> dict[str, Any]:
        """The other fields of a `ReplySample` that names the first span that it is from.

        `form` is that of all rows whose prompt is in one of ours.
        """
        turn = self.turn
        return {
            "agent": turn.agent,
            "policy": turn.policy or "",
            "trace_id": turn.trace_id,
            "span_ids": [turn.span_id],
            "messages": messages,
            "completion": self.content,
            "tool_calls": self.tool_calls or None,
            "tools": self.tools,
            "prompt_form": turn.prompt_form and form,
        }


class Replies:
    """The turns of one agent, one pass over the record.

    The store gives each turn its whole prompt, so a later turn of a trajectory needs nothing of the earlier ones.
    """

    def __init__(self, source: Source) -> None:
        store, config = source.store, source.config
        self._source = source
        self._text = lru_cache(maxsize=64)(store.texts.get)
        self._held_out = source.held_out.runs(store)
        self._admission = Admission(store, config.purposes, source.evaluated)
        self._student = Student(store, source.agent, source.form)

    @property
    def form(self) -> str:
        """Digest of the prompt form that the student is shown."""
        return self._student.digest

    def turns(self, policy: Sequence[str] | None) -> Iterator[MinedTurn]:
        """In the order in which the calls began; `policy` are those of which one was asked, None for any."""
        for values in self._source.store.turns(MinedTurn._fields, **self._source.wanted(policy)):
            yield MinedTurn._make(values)

    def admitted(self, policy: Sequence[str] | None) -> Iterator[tuple[MinedTurn, str | None]]:
        """Those turns, each with why nothing of its run may be learned from; without runs that aren't asked for."""
        for turn in self.turns(policy):
            self._source.on_turn(turn.trace_id)
            refusal = self.run_refusal(turn.trace_id)
            if refusal is not None or self.wants(turn.trace_id):
                yield turn, refusal

    def run_refusal(self, trace_id: str) -> str | None:
        """Why nothing of a run may be learned from, in words fit for counting."""
        return self._held_out.get(trace_id) or self._admission.refusal(trace_id)

    def wants(self, trace_id: str) -> bool:
        """Whether a run that may be learned from was made for a purpose that is asked for."""
        return self._admission.wants(trace_id)

    def origin(self, trace_id: str) -> Learnable:
        """Why a run that may be learned from was made."""
        return self._admission.origin(trace_id)

    def definitions(self, turn: MinedTurn) -> str | None:
        """Of the tools that were in sight, as recorded."""
        return self._text(turn.tools_digest) if turn.tools_digest else turn.tool_definitions

    def read(self, turn: MinedTurn) -> Reply | str:
        """The reply, or why it can't be a row. Whether it is worth imitating is `turn.unfit`'s to say."""
        system = self._text(turn.system_digest) if turn.system_digest else turn.system_instructions
        definitions = self.definitions(turn)
        if (turn.system_digest and system is None) or (turn.tools_digest and definitions is None):
            return UNREADABLE
        try:
            said = turn.reply()
            if said is None:
                return UNREADABLE
            if said["role"] != "assistant":
                return "a reply that isn't the assistant's"
            if turn.demonstration and not said["content"] and not said["tool_calls"]:
                return "empty reply"
            if (refusal := self._student.refusal(turn.prompt_form, turn.demonstration)) is not None:
                return refusal
            asked, tools, shown = turn.asked, turn.sent(definitions), None
            if turn.demonstration and turn.prompt_form is not None:
                shown, tools = self._student.shown(turn.prompt_form, turn.prompt(system), tools)
                asked = (to_json([shown, tools]).decode(),)
            content, calls = said["content"], said["tool_calls"]
            written = to_json(calls).decode() if calls else ""
            digest = digest_texts((*(turn.ids or ("", "")), *asked, turn.policy, content, written))
        except NotForTrainingError as error:
            return str(error)
        except ValueError:
            return UNREADABLE
        return Reply(turn, content, calls, tools, system, asked, shown, digest)

    def prompt(self, reply: Reply) -> Prompt | str:
        """Its messages, or why they may not be learned from. It reads them all, so ask once for each row."""
        try:
            messages = reply.shown or reply.turn.prompt(reply.system)
        except NotForTrainingError as error:
            return str(error)
        except ValueError:
            return UNREADABLE
        return self._source.held_out.messages(messages) or messages
