"""Spans and labels in the form that MLflow's pages show: span types, inputs and outputs, assessments.

MLflow 3.17 reads `mlflow.spanType`, `mlflow.spanInputs` and `mlflow.spanOutputs`; without them its pages show neither
agents nor tools, and no text.
"""

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.labels import Label

TYPES = {
    "invoke_workflow": "CHAIN",
    "invoke_agent": "AGENT",
    "plan": "CHAIN",
    **dict.fromkeys(a.INFERENCE, "CHAT_MODEL"),
    "execute_tool": "TOOL",
}
"""Operation → MLflow's span type; it shows a span without one as of no type."""

EDIT = "edit"
"""Name of a person's better reply; MLflow calls it an expectation of the name `EXPECTED`."""

EXPECTED = "expected_response"

_MOVED = (
    *(a.TASK, a.OUTCOME, a.GOAL, a.OUTPUT, a.PLAN, a.TOOL_CALL_ARGUMENTS, a.TOOL_CALL_RESULT),
    *(a.INPUT_MESSAGES, a.OUTPUT_MESSAGES, a.SYSTEM_INSTRUCTIONS),
)


def mlflow_span(span: SpanRecord) -> SpanRecord:
    """The span with its type and texts under MLflow's names; the texts are moved, not repeated."""
    operation = str(span.attributes.get(a.OPERATION, ""))
    form: dict[str, JsonValue] = {"mlflow.spanType": TYPES.get(operation, "UNKNOWN")}
    inputs, outputs = _texts(operation, {name: _parsed(span.attributes.get(name)) for name in _MOVED})
    if inputs is not None:
        form["mlflow.spanInputs"] = inputs
    if outputs is not None:
        form["mlflow.spanOutputs"] = outputs
    kept = {name: value for name, value in span.attributes.items() if name not in _MOVED}
    return span.model_copy(update={"attributes": kept | form})


def assessment(label: Label) -> dict[str, Any]:
    """The label in MLflow's REST form: what was expected as an expectation, everything else as feedback."""
    name = EXPECTED if label.name == EDIT else label.name
    at = datetime.fromtimestamp(label.at_ns / 1e9, UTC).isoformat().replace("+00:00", "Z")
    form: dict[str, Any] = {
        "assessment_name": name,
        "trace_id": f"tr-{label.trace_id}",
        "source": {"source_type": label.source_type.upper(), "source_id": label.source},
        "create_time": at,
        "last_update_time": at,
        "expectation" if name.startswith("expected_") else "feedback": {"value": label.value},
        "metadata": {"journeyman.version": str(label.version)},
    }
    if label.span_id is not None:
        form["span_id"] = label.span_id
    if label.comment is not None:
        form["rationale"] = label.comment
    return form


def _texts(operation: str, found: dict[str, Any]) -> tuple[JsonValue, JsonValue]:
    """What went into a span and what came out."""
    match operation:
        case "invoke_workflow":
            return _field(found[a.TASK], "prompt"), _field(found[a.OUTCOME], "answer")
        case "plan":
            return _chat(found[a.SYSTEM_INSTRUCTIONS], found[a.INPUT_MESSAGES]), found[a.PLAN]
        case "chat" | "generate_content" | "text_completion":
            return _chat(found[a.SYSTEM_INSTRUCTIONS], found[a.INPUT_MESSAGES]), _chat(None, found[a.OUTPUT_MESSAGES])
        case "execute_tool":
            return found[a.TOOL_CALL_ARGUMENTS], found[a.TOOL_CALL_RESULT]
    return found[a.GOAL], found[a.OUTPUT]


def _chat(system: Any, messages: Any) -> JsonValue:
    """Messages with their text as MLflow's chat page wants it; whatever is no list of messages, as it is."""
    if not isinstance(messages, list):
        return messages  # type: ignore[no-any-return]
    instructions = [{"role": "system", "parts": system}] if isinstance(system, list) else []
    return {"messages": [_message(message) for message in [*instructions, *messages] if isinstance(message, dict)]}


def _message(message: dict[str, Any]) -> dict[str, JsonValue]:
    parts = [part for part in message.get("parts", ()) if isinstance(part, dict)]
    content = [str(part.get("content", part.get("response", ""))) for part in parts if part.get("type") != "tool_call"]
    calls: list[JsonValue] = [
        {
            "id": part.get("id"),
            "type": "function",
            "function": {"name": part.get("name"), "arguments": json.dumps(part.get("arguments"))},
        }
        for part in parts
        if part.get("type") == "tool_call"
    ]
    shown: dict[str, JsonValue] = {"role": message.get("role"), "content": "\n".join(content)}
    return shown | {"tool_calls": calls} if calls else shown


def _field(value: Any, name: str) -> JsonValue:
    return value.get(name) if isinstance(value, dict) else value


def _parsed(value: JsonValue) -> Any:
    """JSON text as what it says; a text that is no JSON, e.g. a digest, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
