"""The student: who a row is for. It is shown its own prompt, whatever the one who gave the reply was shown."""

from typing import Any

from journeyman.agents.prompt import PromptForm
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import HELD_OUT

Prompt = tuple[dict[str, Any], ...]
Tools = list[dict[str, Any]] | None

NEWEST = f"""
SELECT arg_max(prompt_form, start_ns) AS prompt_form FROM spans
WHERE agent = ? AND prompt_form IS NOT NULL
    AND trace_id NOT IN (SELECT trace_id FROM spans WHERE purpose IN {HELD_OUT})
"""


class Student:
    """An agent as it is addressed now."""

    def __init__(self, store: TraceStore, agent: str, form: PromptForm | None = None) -> None:
        """Without `form`, as in the agent's newest run that was not made to measure."""
        self._form = form
        (row,) = store.sql(NEWEST, [agent]).to_pylist()
        self.digest = form.digest if form is not None else _student_digest(row["prompt_form"] or "")
        """Of the form that its rows are in."""

    def refusal(self, prompt_form: str | None, demonstration: bool) -> str | None:
        """Why a turn that was asked in that form can't be a row of this student, in words fit for counting.

        A demonstration, which is text alone, is put in the student's own prompt. What isn't of our runs has no form.
        """
        if prompt_form is None:
            return None
        if _student_digest(prompt_form) != self.digest and (self._form is None or not demonstration):
            return "another prompt than the agent has now"
        return None if demonstration or not _examples(prompt_form) else "shown examples that an adapter isn't shown"

    def shown(self, prompt_form: str, prompt: Prompt, tools: Tools) -> tuple[Prompt, Tools]:
        """A demonstration's prompt and tools as the student is shown them."""
        system, *rest = prompt
        rest = rest[_examples(prompt_form) :]
        if self._form is None or _student_digest(prompt_form) == self.digest:
            return (system, *rest), tools
        return (system | {"content": self._form.instructions}, *rest), list(self._form.tools) or None


def _student_digest(prompt_form: str) -> str:
    """Of a `PromptForm.shown`, the part that says what a student is shown."""
    return prompt_form.partition("+")[0]


def _examples(prompt_form: str) -> int:
    """How many messages of examples stand behind the instructions."""
    return int(prompt_form.partition("+")[2] or 0)
