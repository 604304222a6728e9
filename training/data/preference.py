"""Preference rows: pairs of replies to one and the same prompt, of which one is better, from what really branched."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from journeyman.traces.assemble import trajectory_refusal
from journeyman.training.data.edits import NO_EDITS, PERSON, Edit, Edits
from journeyman.training.data.pairs.alternatives import Alternative, Call, Outcome, Pair, find_pairs, unpaired
from journeyman.training.data.pairs.complaints import CERTAIN, UNUSABLE, Complaints
from journeyman.training.data.pairs.forks import Forks
from journeyman.training.data.pairs.outcomes import Outcomes
from journeyman.training.data.pairs.sides import Sides
from journeyman.training.data.replies import Replies, Reply
from journeyman.training.data.source import Source
from journeyman.training.data.statements import Superseded
from journeyman.training.data.turns import MinedTurn

Alternatives = dict[bytes, Alternative]


class PreferenceMining:
    """Two passes over the turns of an agent: the first finds by digests what pairs, the second reads only that.

    In memory are a few thousand turns, and of each turn that could be in a pair a digest, its ids and its outcome.
    """

    unit = "turn"

    def __init__(self, source: Source) -> None:
        self._source = source
        self._counted: Counter[str] = Counter()
        self._origins: Counter[str] = Counter()
        self._paired: set[Call] = set()
        self._groups: dict[bytes, Alternatives] = defaultdict(dict)
        """By prompt."""
        self._forked: dict[tuple[str, bytes], Alternatives] = defaultdict(dict)
        """By the run that was forked, and prompt."""
        self._corrections: list[Pair] = []
        self._complaints = Complaints()
        self.edited = NO_EDITS
        """What came of people's corrections, once the pass is over."""

    def __iter__(self) -> Iterator[bytes]:
        """The line of each pair, as `sample_line` writes it."""
        source = self._source
        self._replies = replies = Replies(source)
        self._forks = Forks(source.store, source.ids)
        self._outcomes = Outcomes(source)
        self._edits = Edits(source.store, source.agent, source.wanted(None))
        for turn in replies.turns(None):
            source.on_turn(turn.trace_id)
            refusal = self._forks.refusal(turn.trace_id, replies)
            if refusal is None and self._forks.wants(turn.trace_id, replies):
                refusal = self._take(turn)
            self._counted.update([] if refusal is None else [refusal])
        yield from self._lines([*self._corrections, *self._complaints.pairs, *self._branched()])
        self.edited = self._edits.edited

    def finished(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """The same lines: each was whole."""
        return lines

    @property
    def refused(self) -> dict[str, int]:
        """Turns that are in no pair, counted by reason, most frequent first."""
        return dict(self._counted.most_common())

    @property
    def turns(self) -> int:
        """Turns that are in a pair."""
        return len(self._paired)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Pairs of each origin."""
        return {"origin": dict(self._origins.most_common())}

    @property
    def superseded(self) -> tuple[Superseded, ...]:
        return self.edited.superseded

    def _take(self, turn: MinedTurn) -> str | None:
        """Why a turn can be in no pair."""
        call = Call(turn.trace_id, turn.span_id)
        if (edit := self._edits.of(*call)) is not None:
            self._complaints.went_on(turn, None)
            return self._correct(turn, call, edit)
        if turn.refusal == UNUSABLE:
            self._complaints.refused(turn, call)
            return None
        reply = turn.refusal or trajectory_refusal(turn.agent, turn.trajectory_status) or self._replies.read(turn)
        if isinstance(reply, str):
            self._complaints.went_on(turn, None)
            return reply
        outcome = self._outcomes.of(turn)
        unfit = turn.unfit or reply.misformed or self._unwanted(turn)
        self._complaints.went_on(turn, call if unfit is None and self._is_enough(outcome) else None)
        self._group(reply, call, unfit, outcome)
        return None

    def _correct(self, turn: MinedTurn, call: Call, edit: Edit) -> str | None:
        if not self._source.config.takes(PERSON):
            return "corrected by a person"
        refusal = turn.refusal if turn.refusal != UNUSABLE else None
        if refusal is None:
            self._corrections.append(Pair("person", CERTAIN, (call,), (call,)))
        else:
            self._edits.took(edit, refusal)
        return None

    def _group(self, reply: Reply, call: Call, unfit: str | None, outcome: Outcome | None) -> None:
        prompt, said, policy = reply.prompt_digest, reply.said_digest, reply.turn.policy or ""
        family = self._forks.family(call.trace_id)
        groups = [] if call.trace_id in self._forks else [self._groups[prompt]]
        groups += [] if family is None else [self._forked[family, prompt]]
        for alternatives in groups:
            if said not in alternatives:
                alternatives[said] = Alternative(said)
            alternatives[said].add(call, policy, unfit, outcome)

    def _unwanted(self, turn: MinedTurn) -> str | None:
        """Why a turn can't be the chosen side: that is the one whose policy is asked for."""
        return None if self._source.config.takes(turn.policy) else "of a policy that isn't asked for"

    def _is_enough(self, outcome: Outcome | None) -> bool:
        least = self._source.config.min_score
        return least is None or (outcome is not None and outcome.value >= least)

    def _branched(self) -> Iterator[Pair]:
        least = self._source.config.min_score
        for alternatives in self._forked.values():
            yield from find_pairs(alternatives.values(), least, fork=True)
        for alternatives in self._groups.values():
            yield from find_pairs(alternatives.values(), least, fork=False)

    def _lines(self, pairs: list[Pair]) -> Iterator[bytes]:
        broken: dict[Call, str] = {}
        with Sides(self._source, self._replies, self._edits, pairs) as sides:
            for pair in pairs:
                line = sides.line(pair)
                refusal = line if isinstance(line, str) else None
                if pair.origin == "person" and (edit := self._edits.of(*pair.rejected[0])) is not None:
                    self._edits.took(edit, refusal)
                elif refusal is not None:
                    broken |= dict.fromkeys((*pair.chosen, *pair.rejected), refusal)
                if isinstance(line, bytes):
                    self._origins[pair.origin] += 1
                    self._paired.update(pair.chosen, pair.rejected)
                    yield line
        others = ((call, reason) for call, reason in self._unpaired() if call not in self._paired)
        self._counted.update(broken.get(call, reason) for call, reason in others)

    def _unpaired(self) -> Iterator[tuple[Call, str]]:
        """Why turns may be in no pair, in words fit for counting: each once."""
        label = self._source.config.label
        for alternatives in self._groups.values():
            yield from unpaired(alternatives.values(), label)
        for alternatives in self._forked.values():
            forks = unpaired(alternatives.values(), label)
            yield from ((call, reason) for call, reason in forks if call.trace_id in self._forks)
        yield from ((call, UNUSABLE) for call in self._complaints.calls)
