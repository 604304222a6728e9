"""`journeyman mcp`: the command that an MCP client starts, with a crew from a file."""

import json
import subprocess
import sys
from pathlib import Path

from mcp import Client, StdioServerParameters

JOURNEYMAN = str(Path(sys.executable).with_name("journeyman"))
CREW = """
name = "sums"

[workers.clerk]
description = "counts"
tools = ["calculator"]

[tools.calculator]
use = "calculator"
"""


async def test_a_client_starts_it_and_finds_the_crew(tmp_path: Path) -> None:
    (tmp_path / "crew.toml").write_text(CREW)
    place = ["--crew", str(tmp_path / "crew.toml"), "-C", str(tmp_path / ".journeyman")]
    server = StdioServerParameters(command=JOURNEYMAN, args=["mcp", "--attach", "http://127.0.0.1:9", *place])
    async with Client(server) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        waiting = await client.call_tool("list_runs", {})
    assert set(tools) == {"run_task", "list_runs", "answer_run"}
    assert "counts" in (tools["run_task"].description or "")
    assert waiting.structured_content == {"runs": []}


def test_without_a_server_it_ends_with_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "crew.toml").write_text(CREW)
    done = subprocess.run([JOURNEYMAN, "mcp"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no server is running")
    assert done.stdout == ""


def test_over_http_it_says_as_json_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "crew.toml").write_text(CREW)
    command = [JOURNEYMAN, "mcp", "--attach", "http://127.0.0.1:9", "--http", "0", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = "".join(iter(server.stdout.readline, "}\n")) + "}"
        server.terminate()
    there = json.loads(said)
    assert there["crew"] == "sums"
    assert there["url"].startswith("http://127.0.0.1:")
