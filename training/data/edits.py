"""Edits: what people wrote in the place of an agent's replies, each a demonstration by a person."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json

from journeyman.agents.judge import JUDGE
from journeyman.traces import attributes as a
from journeyman.traces.assemble import withheld
from journeyman.traces.base import Record
from journeyman.traces.exchange.mlflow_form import EDIT
from journeyman.traces.labels import Label, newest
from journeyman.traces.messages import NotForTrainingError
from journeyman.traces.storage.conditions import Conditions
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Trace
from journeyman.training.data.reply_form import Output, ReplyForm
from journeyman.training.data.statements import Superseded, settle

PERSON = "person"
"""The policy of a reply that a person wrote in the place of a recorded one."""

_SPANS = f"""
SELECT DISTINCT edited.trace_id, edited.span_id, edited.operation, coalesce(edited.agent, asked.agent) AS agent,
    asked.operation AS above, asked.assignment, edited.attributes ->> '$."{a.CONTENT}"' AS content,
    edited.attributes ->> '$."{a.REDACTED}"' AS redacted
FROM spans AS edited
LEFT JOIN spans AS asked ON asked.trace_id = edited.trace_id AND asked.span_id = edited.parent_id
WHERE edited.trace_id IN (SELECT unnest(?::VARCHAR[])) AND edited.span_id IN (SELECT unnest(?::VARCHAR[]))
"""

_OUTPUT = f"""
SELECT arg_max(attributes ->> '$."{a.OUTPUT}"', end_ns) AS output FROM spans
WHERE operation = 'invoke_agent' AND agent = ? AND run_status = 'ok'
"""


class Edited(Record):
    """What came of the edits."""

    turns: int
    """Turns that became rows with what a person wrote."""
    refused: dict[str, int]
    superseded: tuple[Superseded, ...]


NO_EDITS = Edited(turns=0, refused={}, superseded=())


class Edit(NamedTuple):
    label: Label
    superseded: tuple[Superseded, ...]
    """Other edits of the same reply."""
    role: Literal["plan", "verdict", "work"]
    withheld: str | None
    """Why the prompt isn't what the model saw."""

    def completion(self, form: ReplyForm | None) -> str:
        """The reply as the agent would have given it; raises `NotForTrainingError`. `form` is None for any text."""
        text = self.label.value
        if not isinstance(text, str):
            raise NotForTrainingError("an edit that isn't text")
        if not text.strip():
            raise NotForTrainingError("an empty edit")
        if form is None:
            return text
        if self.label.span_id is None:
            return form.answer(text)
        form.check(text)
        return text


class Edits:
    """The edits of one agent's turns, and what comes of them."""

    def __init__(self, store: TraceStore, agent: str, wanted: Conditions) -> None:
        """Of those traces only."""
        self._agent = agent
        self._turns = 0
        self._refused: Counter[str] = Counter()
        self._superseded: list[Superseded] = []
        labels = _labels(store, wanted)
        self._edits = dict(self._of_turns(store, labels)) if labels else {}
        self.outputs: tuple[Output, ...] = _outputs(store, agent) if labels else ()
        """What the agent's answers may be."""

    def of(self, trace_id: str, span_id: str) -> Edit | None:
        return self._edits.get((trace_id, span_id))

    def took(self, edit: Edit, refusal: str | None) -> None:
        """An edit became a row, or was refused."""
        self._turns += refusal is None
        self._refused.update([] if refusal is None else [refusal])
        self._superseded += edit.superseded

    @property
    def edited(self) -> Edited:
        refused = dict(self._refused.most_common())
        return Edited(turns=self._turns, refused=refused, superseded=tuple(self._superseded))

    def _of_turns(self, store: TraceStore, labels: Sequence[Label]) -> Iterable[tuple[tuple[str, str], Edit]]:
        answered = self._answered(store, labels)
        ids = {*(label.span_id for label in labels if label.span_id), *answered.values()}
        rows = store.sql(_SPANS, [[label.trace_id for label in labels], list(ids)]).to_pylist()
        spans = {(row["trace_id"], row["span_id"]): row for row in rows}
        last = frozenset(newest(labels))
        history: dict[tuple[str, str], list[Label]] = defaultdict(list)
        for label in labels:
            span_id = label.span_id or answered.get(label.trace_id)
            refusal = self._refusal(label, span_id, spans)
            if refusal is None and span_id is not None:
                history[label.trace_id, span_id].append(label)
            elif refusal and label in last:
                self._refused[refusal] += 1
        for key, stated in history.items():
            if spans[key]["agent"] in (None, self._agent):
                yield key, _edit(stated, last, spans[key])

    def _refusal(self, label: Label, span_id: str | None, spans: dict[tuple[str, str], dict[str, Any]]) -> str | None:
        """Why an edit is of no turn of anybody; '' where it is another agent's."""
        span = spans.get((label.trace_id, span_id or ""))
        if span is not None and span["agent"] not in (None, self._agent):
            return ""
        if label.source_type != "human":
            return "an edit that no person made"
        if span_id is None:
            return "an edit of an answer that can't be told to be one agent's"
        if span is None:
            return "an edit of a span that is gone"
        return None if span["operation"] in a.INFERENCE else "an edit of a span that isn't a model call"

    def _answered(self, store: TraceStore, labels: Sequence[Label]) -> dict[str, str]:
        """Of each run whose answer was edited, the turn that gave it; the others are left out."""
        ids = {label.trace_id for label in labels if label.span_id is None}
        if not ids:
            return {}
        turns = {trace.trace_id: _answering(trace) for trace in store.traces(ids=ids)}
        return {trace_id: span_id for trace_id, span_id in turns.items() if span_id is not None}


def _labels(store: TraceStore, wanted: Conditions) -> list[Label]:
    """Every edit of those traces, earlier versions too."""
    if not len(store.sql("SELECT 1 FROM labels WHERE name = ? LIMIT 1", [EDIT])):
        return []
    trace_ids = frozenset(store.ids(**wanted))
    return [label for label in store.statements(EDIT) if label.trace_id in trace_ids]


def _edit(stated: Sequence[Label], last: Collection[Label], span: dict[str, Any]) -> Edit:
    counts = settle(stated, last)
    plans, judges = span["above"] == "plan", span["agent"] == JUDGE and span["assignment"] is None
    told = {a.CONTENT: span["content"], a.REDACTED: span["redacted"]}
    return Edit(
        label=counts.label,
        superseded=counts.superseded,
        role="plan" if plans else "verdict" if judges else "work",
        withheld=withheld({name: value for name, value in told.items() if value is not None}),
    )


def _answering(trace: Trace) -> str | None:
    """The last turn of the only agent whose output the answer is, or of the only agent there was."""
    worked = [one for one in trace.trajectories if one.turns]
    if trace.outcome is not None:
        # What an orchestrator handed back is the answer of others.
        answer = trace.outcome.answer
        worked = [one for one in worked if one.plan is None and answer and _text(one.output) == answer]
    return worked[0].turns[-1].span_id if len(worked) == 1 else None


def _text(output: Any) -> str:
    return ", ".join(map(str, output)) if isinstance(output, list) else str(output)


def _outputs(store: TraceStore, agent: str) -> tuple[Output, ...]:
    """As the agent's newest report is."""
    (row,) = store.sql(_OUTPUT, [agent]).to_pylist()
    try:
        output = from_json(row["output"] or "")
    except ValueError:
        return ("text", "values")
    return ("values",) if isinstance(output, list) else ("text",)
