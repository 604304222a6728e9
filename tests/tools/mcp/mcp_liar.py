"""An MCP server by hand, over stdio, that does one thing wrong: the one that its argument names.

Where the argument is JSON, its `tools` are listed and its `result` answers each call.
"""

import json
import sys
import time
from typing import Any

WRONG = sys.argv[1]
CALLS: dict[str, dict[str, Any]] = {
    "refuses": {"error": {"code": -32000, "message": "the shop is closed"}},
    "chatty": {"result": {"content": [{"type": "text", "text": "sold"}]}},
    "odd": {"result": {"content": "a text and no list"}},
}


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "annotations": {"readOnlyHint": True}, "inputSchema": {"type": "object"}}


if WRONG.startswith("{"):
    SCRIPT = json.loads(WRONG)
    CALLS[WRONG] = {"result": SCRIPT.get("result", {"content": [{"type": "text", "text": "done"}]})}
pages = 0


def listed() -> dict[str, Any]:
    global pages
    if WRONG.startswith("{"):
        return {"tools": SCRIPT["tools"]}
    if WRONG == "named":
        return {"tools": [tool("2fa"), tool("answer"), tool("a-b")]}
    if WRONG == "bare":
        return {"tools": []}
    if WRONG == "endless":
        time.sleep(0.2)
        pages += 1
        return {"tools": [tool("shop")], "nextCursor": f"page {pages}"}
    return {"tools": [tool("shop")]}


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    match asked["method"]:
        case "initialize":
            who = {"name": "liar", "version": "1"}
            version = asked["params"]["protocolVersion"]
            return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": who}}
        case "tools/list":
            return {"result": listed()}
        case "tools/call":
            return CALLS[WRONG]
        case _:
            return {"error": {"code": -32601, "message": "no such method"}}


if WRONG == "chatty":
    print("the shop is open", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked and "method" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer(asked)}), flush=True)
