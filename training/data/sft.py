"""SFT rows: the replies of an agent that are worth imitating, one row for each distinct prompt and reply."""

from collections import Counter
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from pydantic_core import to_json

from journeyman.traces.assemble import TEXT_MISSING
from journeyman.traces.attributes import DIGEST_ONLY
from journeyman.traces.messages import NotForTrainingError
from journeyman.training.data.edits import NO_EDITS, PERSON, Edit, Edits
from journeyman.training.data.replies import UNREADABLE, Replies, Reply
from journeyman.training.data.reply_form import Output, ReplyForm, lists_calls
from journeyman.training.data.samples import plain_line
from journeyman.training.data.source import Source
from journeyman.training.data.student import Prompt
from journeyman.training.data.turns import MinedTurn, read_definitions


class SFTMining:
    """One pass over the turns of an agent; in memory are a few thousand of them, and a digest and span ids of each row.

    A row that comes again is merged into the first: `finished` names all its spans.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._counted: Counter[str] = Counter()
        self.edited = NO_EDITS
        """What came of people's corrections, once the pass is over."""
        self._span_ids: dict[bytes, list[str]] = {}
        self._by_hand: set[bytes] = set()
        """Rows that a person wrote, which no credit is for."""

    def __iter__(self) -> Iterator[bytes]:
        """The line of each distinct row, as `sample_line` writes it, naming the first span that it is from."""
        self._counted.clear()
        self._span_ids.clear()
        self._by_hand.clear()
        config = self._source.config
        scores = self._source.scores()
        self._replies = replies = Replies(self._source)
        asked = None if config.policy == PERSON else config.policy  # A person wrote over whatever policy was asked.
        edits = Edits(self._source.store, self._source.agent, self._source.wanted(asked))
        by_person = config.policy in (None, PERSON)
        for turn in replies.turns(asked):
            edit = edits.of(turn.trace_id, turn.span_id)
            if edit is None and config.policy == PERSON:
                continue
            self._source.on_turn(turn.trace_id)
            refusal = replies.run_refusal(turn.trace_id)
            if refusal is None and not replies.wants(turn.trace_id):
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

    def finished(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """The lines of the pass that is over, each naming all its spans, and weighed by their mean credit."""
        weights = (self._weight(digest) for digest in self._span_ids)
        return map(_naming, lines, map(tuple, self._span_ids.values()), weights)

    @property
    def refused(self) -> dict[str, int]:
        """Turns that may not be training data, counted by reason, most frequent first."""
        return dict(self._counted.most_common())

    @property
    def turns(self) -> int:
        """Turns that became samples, duplicates included."""
        return sum(map(len, self._span_ids.values()))

    def _weight(self, digest: bytes) -> float:
        if (credit := self._source.credit) is None or digest in self._by_hand:
            return 1.0
        return fmean(credit.rewards[span_id] for span_id in self._span_ids[digest])

    def _edited_row(self, turn: MinedTurn, edit: Edit, outputs: tuple[Output, ...]) -> bytes | str | None:
        """Like `_row`, of what the person wrote. How the work ended and what it scored is of what was said before."""
        if edit.withheld is not None:
            return edit.withheld
        if not turn.input_messages or turn.input_messages.startswith(DIGEST_ONLY):
            return TEXT_MISSING
        try:
            text = edit.completion(_reply_form(turn, edit, self._replies.definitions(turn), outputs))
        except NotForTrainingError as error:
            return str(error)
        except ValueError:
            return UNREADABLE
        return self._row(turn.by(PERSON, text), edited_by=edit.label.source)

    def _refusal(self, turn: MinedTurn, edit: Edit | None, scores: dict[str, float | None]) -> str | None:
        corrected = None if edit is None else "corrected by a person"
        unfit = corrected or self._score_refusal(turn, scores) or turn.unfit
        return unfit or self._source.credit_refusal(turn.span_id)

    def _score_refusal(self, turn: MinedTurn, scores: dict[str, float | None]) -> str | None:
        config = self._source.config
        if config.min_score is None:
            return None
        if turn.trace_id not in scores:
            return f"no label {config.label}"
        score = scores[turn.trace_id]
        if score is None:
            return f"label {config.label} is no number"
        return None if score >= config.min_score else f"{config.label} below {config.min_score:g}"

    def _row(self, turn: MinedTurn, edited_by: str | None = None) -> bytes | str | None:
        """The line of the row if it is a new one, else None; or why there is none."""
        reply = self._replies.read(turn)
        if isinstance(reply, str):
            return reply
        known = self._span_ids.get(digest := reply.digest)
        if known is not None:
            known.append(turn.span_id)
            return None
        messages = self._replies.prompt(reply)
        if isinstance(messages, str):
            return messages
        self._span_ids[digest] = [turn.span_id]
        if edited_by is not None:
            self._by_hand.add(digest)
        return _line(reply, messages, self._replies.form, edited_by)


def _reply_form(turn: MinedTurn, edit: Edit, tools: str | None, outputs: tuple[Output, ...]) -> ReplyForm | None:
    """None for what isn't of our runs, where any text is a reply."""
    if turn.run_id is None:
        return None
    return ReplyForm(
        role=edit.role,
        written=turn.output_type == "json",
        tools=tuple(tool["name"] for tool in read_definitions(tools)) if tools else (),
        several=lists_calls(turn.output_messages),
        outputs=outputs,
    )


def _line(reply: Reply, messages: Prompt, form: str, edited_by: str | None) -> bytes:
    """`form` is that of all rows whose prompt is in one of ours."""
    turn = reply.turn
    more: dict[str, Any] = {
        "tool_calls": reply.tool_calls or None,
        "tools": reply.tools,
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
        completion=reply.content,
        **{name: value for name, value in more.items() if value is not None},
    )


def _naming(line: bytes, span_ids: tuple[str, ...], weight: float) -> bytes:
    """The line with all its spans in the place of the first, and its weight. No text can hold the keys: there their
    quotes are escaped."""
    # Parsed and dumped instead, in as many lines, a merged row costs 40 µs (8 kB) to 340 µs (69 kB); this 2 to 10 µs.
    if weight != 1.0:
        line = line.replace(b'"weight":1.0', b'"weight":' + to_json(weight), 1)
    if len(span_ids) == 1:
        return line
    return line.replace(b'"span_ids":["%s"]' % span_ids[0].encode(), b'"span_ids":' + to_json(span_ids), 1)
