"""SFT rows: the replies of an agent that are worth imitating, one row for each distinct prompt and reply."""

from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import fmean

from journeyman.training.data.accepted import not_accepted
from journeyman.training.data.admission import Learnable
from journeyman.training.data.edits import NO_EDITS, PERSON, Edit, Edits
from journeyman.training.data.replies import Replies
from journeyman.training.data.samples import SFTOrigin, SFTSample, plain_line, weighed, with_spans
from journeyman.training.data.source import Source
from journeyman.training.data.statements import Superseded
from journeyman.training.data.turns import MinedTurn

ORIGINS: Mapping[Learnable, SFTOrigin] = {
    "service": "service",
    "teach": "teacher",
    "rollout": "rollout",
    "unknown": "unknown",
}
"""By why a run was made, who gave its replies."""


class SFTMining:
    """One pass over the turns of an agent; in memory are a few thousand of them, and a digest and span ids of each row.

    A row that comes again is merged into the first: `finished` names all its spans.
    """

    unit = "turn"

    def __init__(self, source: Source) -> None:
        self._source = source
        self._counted: Counter[str] = Counter()
        self.edited = NO_EDITS
        """What came of people's corrections, once the pass is over."""
        self._origins: Counter[str] = Counter()
        self._span_ids: dict[bytes, list[str]] = {}
        self._by_hand: set[bytes] = set()
        """Rows that a person wrote, which no credit is for."""

    def __iter__(self) -> Iterator[bytes]:
        """The line of each distinct row, as `sample_line` writes it, naming the first span that it is from."""
        self._counted.clear()
        self._span_ids.clear()
        self._by_hand.clear()
        self._origins.clear()
        config = self._source.config
        scores = self._source.scores()
        self._left_out = {**self._source.left_out, **not_accepted(self._source.store)}
        self._replies = replies = Replies(self._source)
        by_person = config.takes(PERSON)
        asked = None if by_person else config.policy  # A person wrote over whatever policy was asked.
        self._edits = edits = Edits(self._source.store, self._source.agent, self._source.wanted(asked))
        for turn in replies.turns(asked):
            edit = edits.of(turn.trace_id, turn.span_id)
            if edit is None and not config.takes(turn.policy):
                continue
            self._source.on_turn(turn.trace_id)
            refusal = replies.run_refusal(turn.trace_id)
            if refusal is None and not replies.wants(turn.trace_id):
                continue
            if edit is not None and by_person:
                row = refusal or self._edited_row(turn, edit)
                edits.took(edit, row if isinstance(row, str) else None)
            else:
                row = refusal or self._refusal(turn, edit, scores) or self._row(turn)
                self._counted.update([row] if isinstance(row, str) else [])
            if isinstance(row, bytes):
                yield row
        self.edited = edits.edited if by_person else NO_EDITS

    def finished(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """The lines of the pass that is over, each naming all its spans, and weighed by their mean credit."""
        weights = map(self._weight, self._span_ids)
        return map(weighed, map(with_spans, lines, map(tuple, self._span_ids.values())), weights)

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

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Rows of each origin."""
        return {"origin": dict(self._origins.most_common())}

    @property
    def superseded(self) -> tuple[Superseded, ...]:
        return self.edited.superseded

    def _edited_row(self, turn: MinedTurn, edit: Edit) -> bytes | str | None:
        """Like `_row`, of what the person wrote. How the work ended and what it scored is of what was said before."""
        written = self._edits.written(turn, edit, self._replies.definitions(turn))
        return written if isinstance(written, str) else self._row(written, edited_by=edit.label.source)

    def _refusal(self, turn: MinedTurn, edit: Edit | None, scores: dict[str, float | None]) -> str | None:
        corrected = None if edit is None else "corrected by a person"
        left_out = corrected or self._left_out.get(turn.trace_id) or self._score_refusal(turn, scores)
        return left_out or turn.unfit or self._source.credit_refusal(turn.span_id)

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
        if (refusal := reply.misformed) is not None:
            return refusal
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
        origin: SFTOrigin = "person" if edited_by is not None else ORIGINS[self._replies.origin(turn.trace_id)]
        self._origins[origin] += 1
        fields = reply.fields(messages, self._replies.form)
        return plain_line(SFTSample, written=reply.written, origin=origin, edited_by=edited_by, **fields)
