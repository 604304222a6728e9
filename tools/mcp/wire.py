"""What an MCP server sends, brought into the protocol's form before the SDK holds it to that.

The SDK refuses a whole list for one odd tool, and a whole result for what only accompanies its text.
"""

import json
from typing import Any

AS_LISTED = "journeyman/schema"
"""Key in a tool's `_meta`: the schema of its parameters as the server wrote it, where the SDK would refuse that."""
TEXTS = ("title", "description")
HINTS = ("readOnlyHint", "idempotentHint", "destructiveHint", "openWorldHint")


def mend(result: dict[str, Any]) -> None:
    """Changes a result in its place, if it is a list of tools or what a tool answered."""
    if isinstance(tools := result.get("tools"), list):
        result["tools"] = [
            _tool(tool) for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str)
        ]
        if not isinstance(result.get("nextCursor"), str):
            result.pop("nextCursor", None)
    if "structuredContent" in result and not isinstance(result["structuredContent"], dict):
        text = json.dumps(result.pop("structuredContent"), ensure_ascii=False)
        result["content"] = result.get("content") or [{"type": "text", "text": text}]
    if "structuredContent" in result:
        result["content"] = result.get("content") or []


def _tool(listed: dict[str, Any]) -> dict[str, Any]:
    """What is used of a tool. Not its `outputSchema`: a result that does not fit it is still what the tool said."""
    schema = listed.get("inputSchema")
    tool: dict[str, Any] = {"name": listed["name"], "inputSchema": schema}
    tool |= {key: listed[key] for key in TEXTS if isinstance(listed.get(key), str)}
    if isinstance(hints := listed.get("annotations"), dict):
        tool["annotations"] = {key: hints[key] for key in HINTS if isinstance(hints.get(key), bool)}
    if not _is_the_protocols(schema):
        tool |= {"inputSchema": {"type": "object"}, "_meta": {AS_LISTED: schema}}
    return tool


def _is_the_protocols(schema: Any) -> bool:
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return False
    properties, required = schema.get("properties", {}), schema.get("required", [])
    return (
        isinstance(schema.get("$schema", ""), str)
        and isinstance(properties, dict)
        and all(isinstance(one, dict | bool) for one in properties.values())
        and isinstance(required, list)
        and all(isinstance(name, str) for name in required)
    )
