"""What servers say instead of a reply, and what kind of failure that is."""

from typing import Any

from journeyman.agents.reply import UnreadableReplyError, read_json
from journeyman.traces.errors import ModelFailure

MAX_CHARS = 300

KINDS: dict[int, ModelFailure] = {408: "timeout", 429: "rate_limited", 504: "timeout"}
"""What an HTTP status means, where it is not plainly the server's failure (5xx) or its refusal (4xx)."""

WORDS: tuple[tuple[str, ModelFailure], ...] = (
    ("rate_limit", "rate_limited"),
    ("timeout", "timeout"),
    ("content_filter", "refused"),
    ("context_length", "refused"),
    ("invalid_request", "refused"),
    ("validation", "refused"),
)
"""What a word in an error's `code` or `type` means, where there is no number."""

ENDS = {
    "end_turn": "stop",
    "eos_token": "stop",
    "function_call": "tool_calls",
    "max_tokens": "length",
    "model_length": "length",
    "refusal": "content_filter",
    "safety": "content_filter",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}
"""Other words for the API's reasons of an end, as servers in front of other APIs let them through."""

GIVEN_UP: dict[str, ModelFailure] = {"abort": "server_error", "error": "server_error", "content_filter": "refused"}
"""Why a server ended a reply before the model did: what there is of it is no reply. The first two are vLLM's words."""


class NoReplyError(Exception):
    """A reply that is none: what the server did instead, as the end of a sentence that begins with its address."""

    def __init__(self, text: str, kind: ModelFailure) -> None:
        super().__init__(text)
        self.kind: ModelFailure = kind


def check_failure(complaint: Any) -> None:
    """Raises `NoReplyError` for an error within what came as a success."""
    if complaint:
        said = _words(complaint) or "it gives no reason"
        raise NoReplyError(f"failed in the middle of its reply: {said}", _kind(complaint))


def check_end(reason: str | None, text: str, refusal: str = "") -> None:
    """Raises `NoReplyError` for a reply that ended with a refusal, or because the server gave up."""
    if refusal:
        raise NoReplyError(f"refused to answer: {_line(refusal)}", "refused")
    if kind := GIVEN_UP.get(reason or ""):
        raise NoReplyError(f"gave its reply up: {reason}" + (f" after {_line(text)!r}" if text else ""), kind)


def status_kind(status: int) -> ModelFailure:
    return KINDS.get(status, "server_error" if status >= 500 else "refused")


def read_end(reason: Any) -> Any:
    """Why a reply ended, in the API's words; an empty reason is none."""
    if not isinstance(reason, str):
        return reason
    if reason in ("", "null"):
        return None
    return ENDS.get(reason.lower(), reason.lower())


def read_complaint(body: bytes) -> str:
    """What a server says is wrong, in one line; empty where it says nothing we can read."""
    try:
        refusal = read_json(body.decode(errors="replace"))
    except UnreadableReplyError:
        return ""
    return _words(refusal.get("error") or refusal) if isinstance(refusal, dict) else ""


def read_parameter(body: bytes) -> str | None:
    """The parameter that a server says is wrong, where it names one as OpenAI does."""
    try:
        refusal = read_json(body.decode(errors="replace"))
    except UnreadableReplyError:
        return None
    error = refusal.get("error") if isinstance(refusal, dict) else None
    named = error.get("param") if isinstance(error, dict) else None
    return named if isinstance(named, str) else None


def _words(complaint: Any) -> str:
    if isinstance(complaint, dict):
        said = complaint.get("message") or complaint.get("detail")
        metadata = complaint.get("metadata")
        raw = metadata.get("raw") if isinstance(metadata, dict) else None  # What the server behind a router says.
        complaint = f"{said}: {raw}" if isinstance(said, str) and isinstance(raw, str) and raw else said
    if isinstance(complaint, list):
        complaint = "; ".join(filter(None, map(_mistake, complaint)))
    return _line(complaint) if isinstance(complaint, str) else ""


def _line(text: str) -> str:
    return " ".join(text.split())[:MAX_CHARS]


def _mistake(one: Any) -> str:
    """One of FastAPI's."""
    if not isinstance(one, dict) or not isinstance(one.get("msg"), str):
        return ""
    where = one.get("loc")
    return ": ".join([*([".".join(map(str, where))] if isinstance(where, list) and where else []), one["msg"]])


def _kind(complaint: Any) -> ModelFailure:
    if not isinstance(complaint, dict):
        return "server_error"
    code = complaint.get("code")
    if str(code).isdecimal() and 400 <= int(str(code)) < 600:
        return status_kind(int(str(code)))
    words = f"{code} {complaint.get('type')}".lower()
    return next((kind for word, kind in WORDS if word in words), "server_error")
