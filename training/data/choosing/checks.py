"""Checks: what keeps a row out of a dataset, seen at that row alone. Each says why, in words fit for counting."""

from collections.abc import Callable, Mapping
from functools import cached_property
from hashlib import sha256

from journeyman.agents.guards.injections import injection
from journeyman.traces.capture.redact import Redactor
from journeyman.training.data.choosing.row import Row
from journeyman.training.data.source import Source
from journeyman.training.data.tasks.heldout import MOST_KNOWN

Check = Callable[[Row], str | None]


class HeldOutCheck:
    """Rows of runs, or with questions, that nobody may learn from. Mining refused them: this is the proof."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __call__(self, row: Row) -> str | None:
        refusals = (reason for trace_id in row.trace_ids if (reason := self._runs.get(trace_id)))
        held_out = self._source.held_out
        return next(refusals, None) or held_out.messages(row.asked) or held_out.texts(row.texts())

    @cached_property
    def _runs(self) -> Mapping[str, str]:
        return self._source.held_out.runs(self._source.store)


class SecretsCheck:
    """Keys and tokens, by the forms that `[traces] redact` knows as `keys`: a model repeats what it was trained on."""

    def __init__(self) -> None:
        self._redactor = Redactor(("keys",))
        self._clean: set[bytes] = set()
        """Digests of texts without any: the next row of a run holds nearly all of the one before."""

    def __call__(self, row: Row) -> str | None:
        new = {sha256(text.encode("utf-8", "replace")).digest()[:16]: text for text in row.texts()}
        texts = [text for digest, text in new.items() if digest not in self._clean]
        if not self._redactor.suspects("\n".join(texts)):
            if len(self._clean) >= MOST_KNOWN:
                self._clean.clear()
            self._clean.update(new)
            return None
        found: set[str] = set()
        for text in texts:
            self._redactor.redact(text, found)
        return f"holds a secret: {', '.join(sorted(found))}" if found else None


def injection_check(row: Row) -> str | None:
    """By the forms that the guardrail `prompt_injection` knows. Instructions are the author's own: they give orders."""
    found = next((kind for text in row.told if (kind := injection(text)) is not None), None)
    return None if found is None else f"an injection: {found}"


class LengthCheck:
    def __init__(self, max_tokens: int) -> None:
        self._most = max_tokens

    def __call__(self, row: Row) -> str | None:
        return f"longer than {self._most} tokens" if row.tokens > self._most else None
