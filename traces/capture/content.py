"""The content policy: what of a span's texts may be kept. It is applied before anything is written or sent.

Token ids and logprobs are the text in another form: where a text is not kept as it was, they go too, and the span is
marked, so that nobody learns from a prompt that the model never saw.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.growth import Growths
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.patterns import is_digest, may_name_secret, names_secret
from journeyman.traces.capture.redact import MARK, Redaction, Redactor
from journeyman.traces.capture.texts import REPEATED

Content: TypeAlias = Literal["full", "digest", "off"]

IDS = frozenset({a.TASK_ID, a.TASK_FAMILY, a.TASK_SET, a.CONVERSATION_ID, a.USER_ID, a.RUN_ID})
"""What whoever runs a task names it by: kept always, or something that stands for it."""

METADATA = frozenset(
    {a.OPERATION, a.PROVIDER, a.WORKFLOW_NAME, a.AGENT_NAME, a.OUTPUT_TYPE, a.TOOL_NAME, a.TOOL_TYPE, a.TOOL_CALL_ID}
    | {a.REQUEST_MODEL, a.RESPONSE_ID, a.RESPONSE_MODEL, a.FINISH_REASONS, a.ERROR_TYPE, a.TOKEN_MODALITY}
    | {a.ASSIGNMENT_ID, a.STATUS, a.TOOL_STATUS, a.ADAPTER_DIGEST, a.BASE_DIGEST, a.WEIGHTS, a.BUDGET, a.ENERGY_SOURCE}
    | {a.EVALUATION_NAME, a.EVALUATION_LABEL, a.LABEL_SOURCE, a.LABEL_SOURCE_TYPE}
    | {a.RESOURCE, a.LINKS, a.CONTENT, a.REDACTED, a.REPLAY_OF, a.POLICY_REASON, a.UNSENT}
    | {a.PURPOSE, a.TASK_SET_DIGEST, a.PROMPT_FORM, a.JUDGED, a.TERMS}
)
"""What the runtime says of a span. Whatever is in neither of the two sets is content, unless it is a number."""

TOKENS = frozenset({a.PROMPT_TOKEN_IDS, a.TOKEN_IDS, a.LOGPROBS})

_Mask: TypeAlias = Callable[[str], str]
_TEXTUAL = (str, list, dict)
_NO_TEXTS = METADATA - {a.RESOURCE, a.LINKS} | TOKENS | {a.PROMPT_DIGEST}

_IDS_IN = {
    a.TASK: {"id": a.TASK_ID, "family": a.TASK_FAMILY, "session": a.CONVERSATION_ID, "user": a.USER_ID},
    a.OUTCOME: {"task_id": a.TASK_ID, "run_id": a.RUN_ID},
}
_COUNTS_IN_OUTCOME = ("trace_id", "status", "usage", "model_calls", "tool_calls", "cost", "seconds")

_logger = logging.getLogger(__name__)


class ContentPolicy:
    """Keeps texts whole, as digests or not at all, and takes secrets and personal data out of them."""

    def __init__(self, content: Content = "full", redact: Iterable[str | Redaction] = ("keys",)) -> None:
        """`redact` is what `Redactor` takes; raises `ConfigError` for a name that it does not know."""
        self._content = content
        self._redactor = Redactor(redact)
        self._growths = Growths()
        """Of prompts in which nothing was found: of the next ones only what came to them is looked at."""
        self._suspects_again = lru_cache(maxsize=256)(self._redactor.suspects)
        """For texts that come with many spans, and are long."""
        self.failures = 0
        """Spans whose content was left out because a function of `redact` raised."""

    def apply(self, span: SpanRecord) -> SpanRecord:
        """The span as it may be recorded: the very same one where there is nothing to take out."""
        try:
            kept = self._redacted(span) if self._redactor else span
        except Exception as error:  # What the function would have taken out is not known: nothing may be kept.
            self._count(error)
            return _without_texts(span, "off", ids=False)
        return kept if self._content == "full" else _without_texts(kept, self._content)

    def redact(self, text: str) -> str:
        """`text` as it may be kept beside the record, e.g. a comment."""
        try:
            return self._redactor.redact(text, set())
        except Exception as error:
            self._count(error)
            return _digest(text)

    def key(self, text: str) -> str:
        """What stands in the record for a user's or a session's id: another one for each, so that it can be found."""
        found: set[str] = set()
        self._redactor.redact(text, found)
        return f"{MARK}{min(found)}:{_hash(text)[:12]}]" if found else text

    def _redacted(self, span: SpanRecord) -> SpanRecord:
        texts = {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in span.attributes.items()
            if name not in _NO_TEXTS and isinstance(value, _TEXTUAL)
        }
        if not self._suspects(span.name, texts | self._new(span)):
            return span
        self._growths.forget(span.trace_id, span.parent_id)
        found: set[str] = set()
        kept: dict[str, JsonValue] = {name: self.key(text) for name, text in texts.items() if name in IDS}
        for name in texts.keys() - IDS:
            text = self._redactor.redact(texts[name], found, name=name)
            unparsed = isinstance(span.attributes[name], str) or text.startswith(MARK)
            kept[name] = text if unparsed else json.loads(text)
        label = self._redactor.redact(span.name, set())
        if label == span.name and all(span.attributes[name] == value for name, value in kept.items()):
            return span
        gone = TOKENS | {a.PROMPT_DIGEST} if found else frozenset()
        attributes = {name: value for name, value in span.attributes.items() if name not in gone} | kept
        for name, ids in _IDS_IN.items():
            if attributes.get(name) != span.attributes.get(name):
                attributes[name] = _with_ids(attributes[name], ids, attributes)
        if found:
            attributes[a.REDACTED] = [*sorted(found)]
        return span.model_copy(update={"name": label, "attributes": attributes})

    def _new(self, span: SpanRecord) -> dict[str, str]:
        """Of a prompt that grew, what came to it."""
        if span.attributes.get(a.OPERATION) == "invoke_agent":
            self._growths.forget(span.trace_id, span.span_id)
        prompt = {name: span.attributes[name] for name in (a.INPUT_MESSAGES,) if name in span.attributes}
        found = self._growths.of(span.trace_id, span.parent_id, span.span_id, prompt)
        return {name: new for name, (_, new) in found.items()}

    def _suspects(self, label: str, texts: Mapping[str, str]) -> bool:
        lines = [label]
        for name, text in texts.items():
            if name in REPEATED:
                if self._suspects_again(text):
                    return True
            elif not (name == a.RUN_ID and is_digest(text)):  # It would look like a key at first glance.
                lines.append(f"{name}={text}" if _tells(name) else text)
        return self._redactor.suspects("\n".join(lines))

    def _count(self, error: Exception) -> None:
        self.failures += 1
        if self.failures == 1:
            # The message could quote the text.
            _logger.warning("redaction failed (%s): content is left out wherever it does", type(error).__name__)


def _without_texts(span: SpanRecord, content: Literal["digest", "off"], *, ids: bool = True) -> SpanRecord:
    """The span with digests for its texts, or with none; without `ids` it has digests for them and a plain name."""
    mask: _Mask = _digest if content == "digest" else lambda text: ""
    key: _Mask = str if ids else _digest
    attributes: dict[str, JsonValue] = {}
    for name, value in span.attributes.items():
        if name in METADATA or isinstance(value, bool | int | float):
            attributes[name] = value
        elif name in IDS:
            attributes[name] = key(str(value))
        elif name == a.TASK:
            attributes[name] = _bare_task(value, mask, key)
        elif name == a.OUTCOME:
            attributes[name] = _bare_outcome(value, mask, key)
        elif name == a.DECISIONS:
            attributes[name] = _bare_decisions(value, mask)
        elif content == "digest" and name not in TOKENS and name != a.EVENTS:
            attributes[name] = value if name == a.PROMPT_DIGEST else _digest(value)
    attributes[a.CONTENT] = content
    name = span.name if ids else str(span.attributes.get(a.OPERATION, "span"))
    return span.model_copy(update={"name": name, "attributes": attributes})


def _bare_task(value: JsonValue, mask: _Mask, key: _Mask) -> str:
    task = _object(value)
    ids = {name: key(text) for name in _IDS_IN[a.TASK] if isinstance(text := task.get(name), str)}
    reference = mask(_as_text(task["reference"])) if task.get("reference") is not None else ""
    return json.dumps({"id": "", **ids, "prompt": mask(_as_text(task.get("prompt"))), "reference": reference or None})


def _bare_outcome(value: JsonValue, mask: _Mask, key: _Mask) -> str:
    outcome = _object(value)
    counts = {name: outcome[name] for name in _COUNTS_IN_OUTCOME if name in outcome}
    texts = {name: mask(text) or None for name in ("answer", "error") if isinstance(text := outcome.get(name), str)}
    kept = {name: text for name, text in texts.items() if text is not None}
    ids = {name: key(_as_text(outcome[name])) for name in _IDS_IN[a.OUTCOME] if name in outcome}
    return json.dumps({"task_id": "", **ids, **counts, **kept})


def _bare_decisions(value: JsonValue, mask: _Mask) -> str:
    """Who decided what stays, so that an audit needs no texts; a reason may quote one."""
    decisions = json.loads(value) if isinstance(value, str) else value
    rows = [one for one in decisions if isinstance(one, dict)] if isinstance(decisions, list) else []
    return json.dumps([{**row, "reason": mask(_as_text(row.get("reason")))} for row in rows])


def _with_ids(value: JsonValue, ids: Mapping[str, str], attributes: Mapping[str, JsonValue]) -> JsonValue:
    """A task or an outcome that names its ids as the span's own attributes do."""
    record = _object(value)
    known = {field: attributes[name] for field, name in ids.items() if record.get(field) and name in attributes}
    return json.dumps({**record, **known}, ensure_ascii=False)


def _object(value: JsonValue) -> dict[str, Any]:
    parsed = json.loads(value) if isinstance(value, str) else value
    return parsed if isinstance(parsed, dict) else {}


def _digest(value: JsonValue) -> str:
    return a.DIGEST_ONLY + _hash(_as_text(value))


def _as_text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


@lru_cache(maxsize=1024)
def _tells(name: str) -> bool:
    return names_secret(name) or may_name_secret(name)
