"""Mining: recorded runs become samples for one agent; what may not be learned from is refused, counted and shown."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field
from pydantic_core import to_json

from journeyman.agents.prompt import PromptForm
from journeyman.traces.assemble import TEXT_MISSING, trajectory_refusal
from journeyman.traces.attributes import DIGEST_ONLY
from journeyman.traces.base import Config, Record
from journeyman.traces.messages import (
    Message,
    NotForTrainingError,
    learnable_instructions,
    learnable_messages,
    reply_attribute,
)
from journeyman.traces.storage.conditions import Conditions
from journeyman.traces.storage.store import TraceStore
from journeyman.training.data.admission import DEFAULT, Admission, Learnable
from journeyman.training.data.edits import NO_EDITS, PERSON, Edit, Edited, Edits
from journeyman.training.data.heldout import NOTHING, HeldOut
from journeyman.training.data.reply_form import Output, ReplyForm, lists_calls
from journeyman.training.data.samples import BUFFER_BYTES, DatasetFile, SFTSample, plain_line, write_lines
from journeyman.training.data.student import Student

UNREADABLE = "messages not readable"


class MineConfig(Config):
    """Which turns are wanted. Those of another policy, family or purpose are passed over; all others are mined or
    refused."""

    label: str = "score"
    """The label of a trace that `min_score` is compared with."""
    min_score: float | None = Field(default=None, allow_inf_nan=False)
    """Smallest value of the label, true counting as 1; None takes every trace, labelled or not."""
    policy: str | None = None
    """Only turns that were asked of this policy, e.g. `teacher`; `person` for the replies that people corrected."""
    family: str | None = None
    """Only tasks of this family."""
    purposes: tuple[Learnable, ...] = DEFAULT
    """Only runs that were made for one of these. One that was made to measure is refused, whatever is asked for."""


class Mined(Record):
    samples: tuple[SFTSample, ...]
    """In the order in which the calls began, exact duplicates merged into the first."""
    refused: dict[str, int]
    """Turns that may not be training data, counted by reason."""
    edited: Edited
    """What came of people's corrections."""

    @property
    def turns(self) -> int:
        """Turns that became samples, duplicates included."""
        return sum(sample.count for sample in self.samples)


def mine_sft(
    store: TraceStore,
    agent: str,
    config: MineConfig,
    *,
    ids: Collection[str] | None = None,
    held_out: HeldOut = NOTHING,
    evaluated: Collection[str] = (),
    form: PromptForm | None = None,
) -> Mined:
    """Replies of `agent` worth imitating, one sample for each distinct prompt and reply; of traces `ids` only.

    See `Mining` for `held_out`, `evaluated` and `form`.
    """
    mining = Mining(store, agent, config, ids, held_out, evaluated=evaluated, form=form)
    first_ones = list(mining)
    samples = tuple(map(SFTSample.model_validate_json, map(_naming, first_ones, mining.span_ids)))
    return Mined(samples=samples, refused=mining.refused, edited=mining.edited)


def mine_to_file(mining: "Mining", folder: Path, name: Callable[[str], str]) -> DatasetFile | None:
    """The same in bounded memory, into a file of `folder` that is named for its digest; None where there is no row."""
    with tempfile.TemporaryFile(buffering=BUFFER_BYTES) as first_ones:
        first_ones.writelines(mining)
        first_ones.seek(0)
        lines = map(_naming, first_ones, mining.span_ids)
        return write_lines(lines, folder, name) if mining.turns else None


class Mining:
    """One pass over the turns of an agent; in memory are a few thousand of them, and a digest and span ids of each row.

    The store gives each turn its whole prompt, so a later turn of a trajectory needs nothing of the earlier ones.
    """

    def __init__(
        self,
        store: TraceStore,
        agent: str,
        config: MineConfig,
        ids: Collection[str] | None = None,
        held_out: HeldOut = NOTHING,
        *,
        evaluated: Collection[str] = (),
        form: PromptForm | None = None,
        on_turn: Callable[[str], None] = lambda trace_id: None,
    ) -> None:
        """`held_out` says what is never learned from, `evaluated` are runs that were measured before runs said
        themselves what they are for. `form` is how the agent is addressed now; by default, as in its newest run that
        may be learned from. `on_turn` is told the trace of each turn that is looked at."""
        self._on_turn = on_turn
        self._store = store
        self._agent = agent
        self._config = config
        self._ids = ids
        self._held_out = held_out
        self._evaluated = evaluated
        self._form = form
        self._text = lru_cache(maxsize=64)(store.texts.get)
        self._counted: Counter[str] = Counter()
        self.edited = NO_EDITS
        """What came of people's corrections, once the pass is over."""
        self._span_ids: dict[bytes, list[str]] = {}

    def __iter__(self) -> Iterator[bytes]:
        """The line of each distinct row, as `sample_line` writes it, naming the first span that it is from."""
        self._counted.clear()
        self._span_ids.clear()
        scores = self._scores()
        refused = self._held_out.runs(self._store)
        admission = Admission(self._store, self._config.purposes, self._evaluated)
        self._student = Student(self._store, self._agent, self._form)
        edits = Edits(self._store, self._agent, self._wanted)
        by_person = self._config.policy in (None, PERSON)
        for values in self._store.turns(_Turn._fields, **self._wanted):
            turn = _Turn._make(values)
            edit = edits.of(turn.trace_id, turn.span_id)
            if edit is None and self._config.policy == PERSON:
                continue
            self._on_turn(turn.trace_id)
            refusal = refused.get(turn.trace_id) or admission.refusal(turn.trace_id)
            if refusal is None and not admission.wants(turn.trace_id):
                continue
            if edit is not None and by_person:
                row = refusal or self._edited_row(turn, edit, edits.outputs)
                edits.took(edit, row if isinstance(row, str) else None)
            else:
                row = refusal or self._refusal(turn, edit, scores) or self._row(turn)
                self._counted.update([row] if isinstance(row, str) else [])
            if isinstance(row, bytes):
                yield row
        self.edited = edits.edited if by_person else NO_EDITS

    @property
    def span_ids(self) -> Iterator[tuple[str, ...]]:
        """Of each row of the pass that is over, in its order: the spans that gave it."""
        return map(tuple, self._span_ids.values())

    @property
    def refused(self) -> dict[str, int]:
        return dict(self._counted.most_common())

    @property
    def turns(self) -> int:
        """Turns that became samples, duplicates included."""
        return sum(map(len, self._span_ids.values()))

    @property
    def _wanted(self) -> Conditions:
        # A person wrote over whatever policy was asked.
        policy = None if self._config.policy == PERSON else self._config.policy
        return {"agent": self._agent, "policy": policy, "family": self._config.family, "ids": self._ids}

    def _edited_row(self, turn: "_Turn", edit: Edit, outputs: tuple[Output, ...]) -> bytes | str | None:
        """Like `_row`, of what the person wrote. How the work ended and what it scored is of what was said before."""
        if edit.withheld is not None:
            return edit.withheld
        if not turn.input_messages or turn.input_messages.startswith(DIGEST_ONLY):
            return TEXT_MISSING
        try:
            text = edit.completion(_reply_form(turn, edit, self._tools(turn), outputs))
        except NotForTrainingError as error:
            return str(error)
        except ValueError:
            return UNREADABLE
        return self._row(turn.written(text), edited_by=edit.label.source)

    def _tools(self, turn: "_Turn") -> str | None:
        return self._text(turn.tools_digest) if turn.tools_digest else turn.tool_definitions

    def _scores(self) -> dict[str, float | None]:
        """The newest value of the label on each whole trace that has one, None where it is no number."""
        rows = self._store.sql(
            """SELECT trace_id, arg_max_null(number, at_ns) AS score FROM labels
            WHERE name = ? AND span_id IS NULL GROUP BY trace_id""",
            [self._config.label],
        )
        return dict(zip(rows["trace_id"].to_pylist(), rows["score"].to_pylist(), strict=True))

    def _refusal(self, turn: "_Turn", edit: Edit | None, scores: dict[str, float | None]) -> str | None:
        corrected = None if edit is None else "corrected by a person"
        return corrected or self._score_refusal(turn, scores) or _turn_refusal(turn)

    def _score_refusal(self, turn: "_Turn", scores: dict[str, float | None]) -> str | None:
        config = self._config
        if config.min_score is None:
            return None
        if turn.trace_id not in scores:
            return f"no label {config.label}"
        score = scores[turn.trace_id]
        if score is None:
            return f"label {config.label} is no number"
        return None if score >= config.min_score else f"{config.label} below {config.min_score:g}"

    def _row(self, turn: "_Turn", edited_by: str | None = None) -> bytes | str | None:
        """The line of the row if it is a new one, else None; or why there is none."""
        system = self._text(turn.system_digest) if turn.system_digest else turn.system_instructions
        tools = self._tools(turn)
        if (turn.system_digest and system is None) or (turn.tools_digest and tools is None):
            return UNREADABLE
        try:
            reply = next(learnable_messages(turn.output_messages), None)
            if reply is None:
                return UNREADABLE
            if reply["role"] != "assistant":
                return "a reply that isn't the assistant's"
            if turn.demonstration and not reply["content"] and not reply["tool_calls"]:
                return "empty reply"
            if (refusal := self._student.refusal(turn.prompt_form, turn.demonstration)) is not None:
                return refusal
            asked, sent = _asked(turn), _sent(turn, tools)
            if taught := turn.demonstration and turn.prompt_form is not None:
                prompt, sent = self._student.shown(turn.prompt_form or "", _prompt(turn, system), sent)
                asked = (to_json([prompt, sent]).decode(),)
            known = self._span_ids.get(contents := _contents(turn, asked, reply))
            if known is not None:
                known.append(turn.span_id)
                return None
            messages = prompt if taught else _prompt(turn, system)
            if (refusal := self._held_out.messages(messages)) is not None:
                return refusal
            line = _line(turn, messages, reply, sent, self._student.digest, edited_by)
        except NotForTrainingError as error:
            return str(error)
        except ValueError:
            return UNREADABLE
        self._span_ids[contents] = [turn.span_id]
        return line


FUNCTION = ("name", "description", "parameters")
"""What of a function's definition a server is sent."""


class _Turn(NamedTuple):
    """Columns of the view `turns`."""

    trace_id: str
    span_id: str
    agent: str
    policy: str | None
    trajectory_status: str | None
    refusal: str | None
    demonstration: bool
    prompt_form: str | None
    system_digest: str | None
    system_instructions: str | None
    tools_digest: str | None
    tool_definitions: str | None
    output_type: str | None
    run_id: str | None
    input_messages: str | None
    output_messages: str | None
    prompt_token_ids_json: str | None
    token_ids_json: str | None

    @property
    def ids(self) -> tuple[str, str] | None:
        """None for a demonstration, which is text alone."""
        if self.demonstration or not self.prompt_token_ids_json or not self.token_ids_json:
            return None
        return self.prompt_token_ids_json, self.token_ids_json

    def written(self, text: str) -> "_Turn":
        """The same turn as a demonstration in which a person said that."""
        said = reply_attribute(Message(role="assistant", content=text))
        return self._replace(policy=PERSON, demonstration=True, output_messages=said)


def _turn_refusal(turn: _Turn) -> str | None:
    if turn.trajectory_status not in ("ok", None):
        return f"trajectory {turn.trajectory_status}"
    return turn.refusal or trajectory_refusal(turn.agent, turn.trajectory_status)


def _reply_form(turn: _Turn, edit: Edit, tools: str | None, outputs: tuple[Output, ...]) -> ReplyForm | None:
    """None for what isn't of our runs, where any text is a reply."""
    if turn.run_id is None:
        return None
    return ReplyForm(
        role=edit.role,
        written=turn.output_type == "json",
        tools=tuple(tool["name"] for tool in _definitions(tools)) if tools else (),
        several=lists_calls(turn.output_messages),
        outputs=outputs,
    )


_instructions = lru_cache(maxsize=64)(learnable_instructions)


def _sent(turn: _Turn, definitions: str | None) -> list[dict[str, Any]] | None:
    """The tools that the server was given, None where it was given none.

    An agent of ours that writes its calls as JSON has tools, but its server is not told of them: it decodes a schema.
    """
    if definitions is None or (turn.run_id is not None and turn.output_type == "json"):
        return None
    return _definitions(definitions) or None


@lru_cache(maxsize=64)
def _definitions(text: str) -> list[dict[str, Any]]:
    """Of functions, as the conventions write them down, or with their fields in a table of their own."""
    tools = json.loads(text)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise NotForTrainingError("tool definitions that aren't a list of objects")
    found = [tool["function"] if isinstance(tool.get("function"), dict) else tool for tool in tools]
    if not all(isinstance(tool.get("name"), str) for tool in found):
        raise NotForTrainingError("a tool definition without a name")
    if not all(tool.get("type", "function") == "function" for tool in tools):
        raise NotForTrainingError("a tool that isn't a function")
    return [{key: tool[key] for key in FUNCTION if tool.get(key) is not None} for tool in found]


def _prompt(turn: _Turn, system: str | None) -> tuple[dict[str, Any], ...]:
    return (*_instructions(system), *learnable_messages(turn.input_messages))


def _asked(turn: _Turn) -> tuple[str | None, ...]:
    """What tells a prompt from another one."""
    system, tools = turn.system_digest or turn.system_instructions, turn.tools_digest or turn.tool_definitions
    return system, tools, turn.input_messages


def _contents(turn: _Turn, asked: Iterable[str | None], reply: dict[str, Any]) -> bytes:
    """A digest of all that makes a row another one."""
    calls = to_json(reply["tool_calls"]).decode() if reply["tool_calls"] else ""
    texts = (*(turn.ids or ("", "")), *asked, turn.policy, reply["content"], calls)
    return sha256("\0".join(text or "" for text in texts).encode()).digest()[:16]


def _line(
    turn: _Turn,
    messages: tuple[dict[str, Any], ...],
    reply: dict[str, Any],
    tools: list[dict[str, Any]] | None,
    form: str,
    edited_by: str | None,
) -> bytes:
    """`form` is that of all rows whose prompt is in one of ours."""
    more = {
        "tool_calls": reply["tool_calls"] or None,
        "tools": tools,
        "prompt_form": turn.prompt_form and form,
        "edited_by": edited_by,
    }
    return plain_line(
        ids=turn.ids,
        agent=turn.agent,
        policy=turn.policy or "",
        trace_id=turn.trace_id,
        span_ids=[turn.span_id],
        messages=messages,
        completion=reply["content"],
        **{name: value for name, value in more.items() if value is not None},
    )


def _naming(line: bytes, span_ids: tuple[str, ...]) -> bytes:
    """The line with all its spans in the place of the first. No text can hold the key: there its quotes are escaped."""
    # Parsed and dumped instead, in as many lines, a merged row costs 40 µs (8 kB) to 340 µs (69 kB); this 2 to 10 µs.
    if len(span_ids) == 1:
        return line
    return line.replace(b'"span_ids":["%s"]' % span_ids[0].encode(), b'"span_ids":' + to_json(span_ids), 1)
