"""KTO rows: the replies of an agent, each with whether it was good: by a thumb, or by what its run was worth."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from journeyman.traces.assemble import trajectory_refusal
from journeyman.training.data.edits import NO_EDITS, Edits
from journeyman.training.data.replies import Replies
from journeyman.training.data.samples import KTOOrigin, KTOSample, plain_line, with_spans
from journeyman.training.data.source import Source
from journeyman.training.data.statements import Superseded, settled
from journeyman.training.data.turns import MinedTurn

THUMBS = "thumbs"


class Judged(NamedTuple):
    good: bool
    origin: KTOOrigin


class KTOMining:
    """One pass over the turns of an agent; in memory are a few thousand of them, and a digest and span ids of each row.

    A reply that was good once and bad another time gives a row of each label.
    """

    edited = NO_EDITS

    def __init__(self, source: Source) -> None:
        self._source = source
        self._counted: Counter[str] = Counter()
        self._origins: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._superseded: dict[tuple[str, str | None], tuple[Superseded, ...]] = {}
        self._span_ids: dict[bytes, list[str]] = {}

    def __iter__(self) -> Iterator[bytes]:
        """The line of each distinct row, as `sample_line` writes it, naming the first span that it is from."""
        source = self._source
        self._scores = source.scores()
        self._thumbs = settled(source.store.statements(THUMBS))
        self._replies = replies = Replies(source)
        edits = Edits(source.store, source.agent, source.wanted(source.config.policy))
        for turn, refusal in replies.admitted(source.config.policy):
            corrected = edits.of(turn.trace_id, turn.span_id) is not None
            row = refusal or self._row(turn, corrected)
            self._counted.update([row] if isinstance(row, str) else [])
            if isinstance(row, bytes):
                yield row

    def finished(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """The lines of the pass that is over, each naming all its spans."""
        return map(with_spans, lines, self._span_ids.values())

    @property
    def refused(self) -> dict[str, int]:
        """Turns that may not be training data, counted by reason, most frequent first."""
        return dict(self._counted.most_common())

    @property
    def turns(self) -> int:
        """Turns that became samples, duplicates included."""
        return sum(map(len, self._span_ids.values()))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Rows of each origin, and how many of them are good."""
        return {"origin": dict(self._origins.most_common()), "label": dict(self._labels)}

    @property
    def superseded(self) -> tuple[Superseded, ...]:
        """Thumbs that contradict each other."""
        return tuple(pair for pairs in self._superseded.values() for pair in pairs)

    def _row(self, turn: MinedTurn, corrected: bool) -> bytes | str | None:
        """The line of the row if it is a new one, else None; or why there is none."""
        judged = self._judged(turn)
        if isinstance(judged, str):
            return judged
        if (refusal := _unfit(turn, judged.good, corrected)) is not None:
            return refusal
        reply = self._replies.read(turn)
        if isinstance(reply, str):
            return reply
        if judged.good and (refusal := reply.misformed) is not None:
            return refusal
        known = self._span_ids.get(digest := reply.digest + bytes([judged.good]))
        if known is not None:
            known.append(turn.span_id)
            return None
        messages = self._replies.prompt(reply)
        if isinstance(messages, str):
            return messages
        self._span_ids[digest] = [turn.span_id]
        self._origins[judged.origin] += 1
        self._labels["good" if judged.good else "bad"] += 1
        fields = reply.fields(messages, self._replies.form)
        return plain_line(KTOSample, written=reply.written, origin=judged.origin, label=judged.good, **fields)

    def _judged(self, turn: MinedTurn) -> Judged | str:
        """A thumb of the call itself comes first, then one of its run, then the run's score."""
        for key in ((turn.trace_id, turn.span_id), (turn.trace_id, None)):
            if (thumb := self._thumbs.get(key)) is not None:
                self._superseded[key] = thumb.superseded
                good = thumb.label.value
                return Judged(good, "thumbs") if isinstance(good, bool) else "a thumb that is neither up nor down"
        label = self._source.config.label
        if turn.trace_id not in self._scores:
            return f"no thumb and no label {label}"
        score = self._scores[turn.trace_id]
        return f"label {label} is no number" if score is None else Judged(score >= self._source.threshold, "outcome")


def _unfit(turn: MinedTurn, good: bool, corrected: bool) -> str | None:
    """Why it can't be learned from. A bad reply may have been the reason why the agent's work failed."""
    if not good:
        return turn.refusal or trajectory_refusal(turn.agent, turn.trajectory_status)
    return turn.unfit or ("corrected by a person" if corrected else None)
