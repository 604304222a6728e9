"""Spans for benchmarks in which agents branch: other replies to one prompt, refused replies, forks, and labels."""

import json
import random
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from _spans import AGENT, spans, token_ids
from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.labels import Label
from journeyman.traces.messages import Message, as_json, prompt_attributes, reply_attribute

OTHER_REPLY = 0.2
"""Share of an agent's first calls that give another reply than usual."""
REFUSED = 0.02
"""Share of them that are refused, and made again after a complaint."""
FORKED = 0.01
"""Share of runs of which there is a replay that left it."""
EDITED = 0.002
COMPLAINT = "Your last reply was not usable: it must be a JSON object"


class Branched(NamedTuple):
    spans: list[SpanRecord]
    labels: list[Label]


def runs(number: int, *, seed: int = 0) -> Iterator[Branched]:
    """Runs of at least so many spans together."""
    made = 0
    for number_of_run, (_, own) in enumerate(groupby(spans(2 * number, seed=seed), attrgetter("trace_id"))):
        chance = random.Random(seed * 10**9 + number_of_run)
        run = _run(list(own), chance)
        yield run
        made += len(run.spans)
        if made >= number:
            return


def _run(own: Sequence[SpanRecord], chance: random.Random) -> Branched:
    branched = [branch for span in own for branch in _branched(span, chance)]
    labels = [_score(own, chance)]
    labels += [_edit(span) for span in branched if _begins(span) and chance.random() < EDITED]
    if chance.random() < FORKED:
        fork = list(_fork(own, chance))
        branched += fork
        labels.append(_score(fork, chance))
    return Branched(branched, labels)


def _begins(span: SpanRecord) -> bool:
    """Whether it is the first call of a worker."""
    known = span.attributes
    if (known.get(a.OPERATION), known.get(a.AGENT_NAME)) != ("chat", AGENT) or span.status == "error":
        return False
    return len(json.loads(str(known[a.INPUT_MESSAGES]))) == 1


def _branched(span: SpanRecord, chance: random.Random) -> Iterator[SpanRecord]:
    if not _begins(span):
        yield span
    elif (drawn := chance.random()) < REFUSED:
        yield _said(span, "facts: look it up", f"{chance.getrandbits(64):016x}").model_copy(update={"status": "error"})
        yield _complained(span)
    else:
        yield _said(span, _other(span, chance), span.span_id) if drawn < OTHER_REPLY else span


def _other(span: SpanRecord, chance: random.Random) -> str:
    (asked,) = json.loads(str(span.attributes[a.INPUT_MESSAGES]))
    words = asked["parts"][0]["content"].split()
    return json.dumps({"facts": {"query": " ".join(words[: chance.randint(1, len(words))])}}, ensure_ascii=False)


def _said(span: SpanRecord, reply: str, span_id: str) -> SpanRecord:
    ids = token_ids(reply)
    said: dict[str, JsonValue] = {
        a.OUTPUT_MESSAGES: reply_attribute(Message(role="assistant", content=reply), "stop"),
        a.TOKEN_IDS: f"[{', '.join(ids)}]",
        a.LOGPROBS: as_json([-0.125] * len(ids)),
    }
    return span.model_copy(update={"span_id": span_id, "attributes": span.attributes | said})


def _complained(span: SpanRecord) -> SpanRecord:
    """The same call a moment later, with the complaint in its prompt."""
    (asked,) = json.loads(str(span.attributes[a.INPUT_MESSAGES]))
    text = f"{asked['parts'][0]['content']}\n\n{COMPLAINT}"
    ids = f"{str(span.attributes[a.PROMPT_TOKEN_IDS])[:-1]}, {', '.join(token_ids(COMPLAINT))}]"
    told: dict[str, JsonValue] = {**prompt_attributes([Message(role="user", content=text)]), a.PROMPT_TOKEN_IDS: ids}
    times = {"start_ns": span.start_ns + 1, "end_ns": span.end_ns + 1}
    return span.model_copy(update={"attributes": span.attributes | told, **times})


def _fork(own: Sequence[SpanRecord], chance: random.Random) -> Iterator[SpanRecord]:
    """The run again, in which the worker begins with another reply."""
    trace_id = f"{chance.getrandbits(128):032x}"
    mark: dict[str, JsonValue] = {a.REPLAY_OF: own[0].trace_id}
    for span in own:
        known = mark | ({a.PURPOSE: "replay"} if a.PURPOSE in span.attributes else {})
        copy = span.model_copy(update={"trace_id": trace_id, "attributes": span.attributes | known})
        yield _said(copy, _other(copy, chance), copy.span_id) if _begins(copy) else copy


def _score(own: Sequence[SpanRecord], chance: random.Random) -> Label:
    solved = own[-1].attributes[a.STATUS] == "ok"
    value = chance.choice([0.75, 1.0]) if solved else chance.choice([0.0, 0.25])
    return Label(trace_id=own[0].trace_id, name="score", source="benchmark", value=value, at_ns=own[-1].end_ns)


def _edit(span: SpanRecord) -> Label:
    told = {"name": "edit", "source": "ann", "source_type": "human", "value": '{"answer": "unknown"}'}
    return Label.model_validate({"trace_id": span.trace_id, "span_id": span.span_id, "at_ns": span.end_ns, **told})
