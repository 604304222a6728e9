"""Prompts: what an agent is asked and doesn't always do well, for methods that sample replies and score them."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from journeyman.traces import attributes as a
from journeyman.traces.assemble import TEXT_MISSING, WITHHELD
from journeyman.traces.trace import Task
from journeyman.training.data.edits import NO_EDITS
from journeyman.training.data.replies import Replies, Reply
from journeyman.training.data.samples import PromptOrigin, PromptSample, plain_line, with_spans
from journeyman.training.data.source import Source
from journeyman.training.data.student import Prompt
from journeyman.training.data.turns import MinedTurn, digest_texts

WITHOUT_TEXT = (WITHHELD, TEXT_MISSING, "redacted", "no response")
"""Refusals of turns whose prompt isn't what the model was shown."""

LEAST_TRIES = 2
"""One try doesn't tell whether a prompt always succeeds."""

FIRST_RATE = re.compile(rb'"success_rate":[01]\.0,"tries":1')
"""No text can hold it: there the quotes of its keys are escaped."""

TASKS = f"""
SELECT trace_id, arg_max_null(attributes ->> '$."{a.TASK}"', end_ns) AS task
FROM spans WHERE operation = 'invoke_workflow' GROUP BY trace_id
"""


@dataclass(slots=True)
class Tried:
    """What came of one prompt so far."""

    origin: PromptOrigin
    span_ids: list[str] = field(default_factory=list)
    runs: set[str] = field(default_factory=set)
    succeeded: int = 0

    @property
    def verdict(self) -> str | None:
        """Why sampling it again would teach nothing, in words fit for counting."""
        if len(self.runs) < LEAST_TRIES:
            return None
        return {0: "never succeeds", len(self.runs): "always succeeds"}.get(self.succeeded)

    @property
    def rate(self) -> dict[str, Any]:
        """Fields of a row."""
        return {"success_rate": self.succeeded / len(self.runs), "tries": len(self.runs)}

    def rated(self, line: bytes) -> bytes:
        """A line that has the rate of the first try, with that of all."""
        return FIRST_RATE.sub(to_json(self.rate)[1:-1], line, count=1)


class PromptMining:
    """One pass over the turns of an agent; in memory are a few thousand of them, and of each prompt a digest, the ids
    of its spans and what its runs were worth."""

    edited = NO_EDITS
    superseded = ()

    def __init__(self, source: Source) -> None:
        self._source = source
        self._counted: Counter[str] = Counter()
        self._tried: dict[bytes, Tried] = {}

    def __iter__(self) -> Iterator[bytes]:
        """The line of each distinct prompt, naming the first span that it is from and what that one came to."""
        source = self._source
        self._scored = source.scored()
        rows = source.store.sql(TASKS)
        self._tasks = dict(zip(rows["trace_id"].to_pylist(), rows["task"].to_pylist(), strict=True))
        self._replies = replies = Replies(source)
        for turn, refusal in replies.admitted(source.config.policy):
            row = refusal or self._refusal(turn) or self._row(turn)
            self._counted.update([row] if isinstance(row, str) else [])
            if isinstance(row, bytes):
                yield row
        for tried in self._tried.values():
            if (verdict := tried.verdict) is not None:
                self._counted[verdict] += len(tried.span_ids)

    def finished(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """The lines of the pass that is over, without those that always or never succeed, each with all its tries."""
        for line, tried in zip(lines, self._tried.values(), strict=True):
            if tried.verdict is None:
                yield tried.rated(with_spans(line, tried.span_ids))

    @property
    def refused(self) -> dict[str, int]:
        """Turns whose prompt is no row, counted by reason, most frequent first."""
        return dict(self._counted.most_common())

    @property
    def turns(self) -> int:
        """Turns whose prompt became a row, duplicates included."""
        return sum(len(tried.span_ids) for tried in self._tried.values() if tried.verdict is None)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Rows of each origin."""
        return {"origin": dict(Counter(tried.origin for tried in self._tried.values() if tried.verdict is None))}

    def _refusal(self, turn: MinedTurn) -> str | None:
        """Only the prompt is learned from, so the reply need not be fit."""
        if turn.refusal in WITHOUT_TEXT:
            return turn.refusal
        if turn.demonstration:
            return "a demonstration: it tells nothing of the agent's own success"
        label = self._source.config.label
        if turn.trace_id not in self._scored:
            return f"no label {label}"
        return f"label {label} is no number" if self._scored[turn.trace_id].score is None else None

    def _row(self, turn: MinedTurn) -> bytes | str | None:
        """The line of the row if it is a new one, else None; or why there is none."""
        reply = self._replies.read(turn)
        if isinstance(reply, str):
            return reply
        tried = self._tried.get(digest := digest_texts(reply.asked))
        if tried is not None:
            self._add(tried, turn)
            return None
        messages = self._replies.prompt(reply)
        if isinstance(messages, str):
            return messages
        task = self._task(turn, messages)
        self._tried[digest] = tried = Tried("recorded" if task is None else "task")
        self._add(tried, turn)
        return self._line(reply, messages, task, tried)

    def _add(self, tried: Tried, turn: MinedTurn) -> None:
        tried.span_ids.append(turn.span_id)
        if turn.trace_id not in tried.runs:
            tried.runs.add(turn.trace_id)
            tried.succeeded += (self._scored[turn.trace_id].score or 0.0) >= self._source.threshold

    def _task(self, turn: MinedTurn, messages: Prompt) -> Task | None:
        """The task of the run, where it is what the agent was asked."""
        try:
            task = Task.model_validate_json(self._tasks.get(turn.trace_id) or "")
        except ValidationError:
            return None
        last = messages[-1]
        return task if (last["role"], last["content"]) == ("user", task.prompt) else None

    def _line(self, reply: Reply, messages: Prompt, task: Task | None, tried: Tried) -> bytes:
        turn = reply.turn
        ids = None if turn.ids is None else turn.ids[0]
        return plain_line(
            PromptSample,
            written={"prompt_token_ids": ids},
            agent=turn.agent,
            origin=tried.origin,
            trace_id=turn.trace_id,
            span_ids=[turn.span_id],
            reward=self._source.config.label,
            scorer=self._scored[turn.trace_id].source,
            **tried.rate,
            messages=messages,
            tools=reply.tools,
            prompt_form=turn.prompt_form and self._replies.form,
            task=None if task is None else task.model_dump(exclude_none=True),
        )
