"""Outcomes: what a model call came to, by what is said of it or of its run, or by the crew's own judge."""

from journeyman.agents.judge import JUDGE
from journeyman.traces import attributes as a
from journeyman.training.data.pairs.alternatives import Outcome
from journeyman.training.data.source import Source
from journeyman.training.data.turns import MinedTurn

OF_CALLS = """
SELECT trace_id, span_id, arg_max(number, at_ns) AS score, arg_max(source_type, at_ns) AS source_type FROM labels
WHERE name = ? AND span_id IS NOT NULL AND number IS NOT NULL GROUP BY trace_id, span_id
"""

VERDICTS = f"""
SELECT trace_id, arg_max(attributes ->> '$."{a.OUTPUT}"', end_ns) = '[]' AS sufficient FROM spans
WHERE operation = 'invoke_agent' AND agent = '{JUDGE}' AND assignment IS NULL AND run_status = 'ok' GROUP BY trace_id
"""
"""The judge's output is the list of what it found wrong."""

LLM_JUDGE = "llm_judge"


class Outcomes:
    def __init__(self, source: Source) -> None:
        rows = source.store.sql(OF_CALLS, [source.config.label]).to_pylist()
        self._of_calls = {(row["trace_id"], row["span_id"]): (row["score"], row["source_type"]) for row in rows}
        self._of_runs = source.scored()
        verdicts = source.store.sql(VERDICTS).to_pylist()
        self._verdicts = {row["trace_id"]: row["sufficient"] for row in verdicts}

    def of(self, turn: MinedTurn) -> Outcome | None:
        """What is said of the call itself comes first, then what is said of its run, then the crew's judge's word."""
        if (own := self._of_calls.get((turn.trace_id, turn.span_id))) is not None:
            return Outcome(own[0], "label", own[1] == LLM_JUDGE)
        scored = self._of_runs.get(turn.trace_id)
        if scored is not None and scored.score is not None:
            return Outcome(scored.score, "label", scored.source_type == LLM_JUDGE)
        verdict = self._verdicts.get(turn.trace_id)
        return None if verdict is None else Outcome(float(verdict), "verdict", by_model=True)
