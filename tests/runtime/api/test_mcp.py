"""A real MCP client uses the crew as tools: over stdio and over HTTP it runs tasks, answers questions and gives up."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult

from journeyman.runtime.api.mcp import listen, make_server
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.run_store import RunStore
from journeyman.traces.errors import ConfigError

CREW = Path(__file__).with_name("mcp_crew.py")
SPEC = spec_from_file_location("mcp_crew", CREW)
assert SPEC is not None and SPEC.loader is not None
cafe = module_from_spec(SPEC)
SPEC.loader.exec_module(cafe)


@asynccontextmanager
async def connected(tmp_path: Path) -> AsyncIterator[Client]:
    """To a server in this process."""
    runtime = Runtime(cafe.crew, model=ScriptedModel(cafe.answers), runs=RunStore(tmp_path / "runs.db"))
    async with runtime, Client(make_server(runtime)) as client:
        yield client


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, CREW, tmp_path_factory.mktemp("cafe") / "runs.db", str(port)])
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(10)


def text(result: CallToolResult) -> str:
    (block,) = result.content
    assert block.type == "text"
    return block.text


def fields(result: CallToolResult) -> dict[str, Any]:
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def test_over_stdio_a_client_runs_tasks_and_is_told_of_each_step(tmp_path: Path) -> None:
    told: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    parameters = StdioServerParameters(command=sys.executable, args=[str(CREW), str(tmp_path / "runs.db")])
    async with Client(parameters) as client:
        result = await client.call_tool("run_task", {"prompt": "coffee"}, progress_callback=on_progress)
    assert (text(result), result.is_error) == ("coffee costs 4.50", False)
    assert fields(result)["status"] == "ok"
    assert told == [
        "plan of 1 assignment",
        "1 waiter: coffee",
        "waiter used price: ok",
        "1 waiter ended: ok",
    ]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_over_stdio_a_signal_ends_the_server_though_its_client_is_still_there(
    tmp_path: Path, sent: signal.Signals
) -> None:
    mark = tmp_path / "mark"
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    task = {"name": "run_task", "arguments": {"prompt": f"brew {mark}"}}
    with subprocess.Popen(
        [sys.executable, CREW, tmp_path / "runs.db"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        for asked in (
            {"id": 1, "method": "initialize", "params": hello},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/call", "params": task},
        ):
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **asked}) + "\n")
        process.stdin.flush()
        try:
            for _ in range(600):
                if mark.exists() and mark.read_text() == "begun":
                    break
                sleep(0.05)
            process.send_signal(sent)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert mark.read_text() == "stopped"


async def test_a_client_is_told_what_the_crew_can_do(tmp_path: Path) -> None:
    async with connected(tmp_path) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"run_task", "list_runs", "answer_run"}
        assert "'cafe'" in (tools["run_task"].description or "")
        assert "knows prices" in (tools["run_task"].description or "")
        assert set(tools["run_task"].input_schema["properties"]) == {"prompt", "session"}


async def test_without_a_run_store_nothing_can_wait(tmp_path: Path) -> None:
    async with Client(make_server(Runtime(cafe.crew, model=ScriptedModel(cafe.answers)))) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["run_task"]
        assert text(await client.call_tool("run_task", {"prompt": "coffee"})) == "coffee costs 4.50"


async def test_a_failed_run_is_an_error_with_its_reason(tmp_path: Path) -> None:
    async with connected(tmp_path) as client:
        failed = await client.call_tool("run_task", {"prompt": "break"})
        assert failed.is_error
        assert "the machine is cold" in text(failed)


async def test_a_question_to_a_person_is_put_and_answered_by_the_client(tmp_path: Path) -> None:
    async with connected(tmp_path) as client:
        waiting = await client.call_tool("run_task", {"prompt": "ask Who pays?"})
        assert (fields(waiting)["status"], waiting.is_error) == ("needs_input", False)
        (question,) = fields(waiting)["questions"]
        assert (question["kind"], question["text"]) == ("answer", "Who pays?")
        assert "Who pays?" in text(waiting)
        (run,) = fields(await client.call_tool("list_runs", {}))["runs"]
        assert (run["prompt"], run["questions"]) == ("ask Who pays?", [question])
        refused = await client.call_tool("answer_run", {"run_id": run["run_id"], "answer": "A\0n"})
        assert (refused.is_error, "null character" in text(refused)) == (True, True)
        done = await client.call_tool("answer_run", {"run_id": run["run_id"], "answer": "Ann does."})
        assert text(done) == "Ann does."
        assert fields(await client.call_tool("list_runs", {}))["runs"] == []


@pytest.mark.parametrize(("word", "said"), [("Yes, please", "tea is on its way"), ("no: too late", "too late")])
async def test_approval_wants_yes_or_no(tmp_path: Path, word: str, said: str) -> None:
    async with connected(tmp_path) as client:
        run_id = fields(await client.call_tool("run_task", {"prompt": "order tea"}))["run_id"]
        unclear = await client.call_tool("answer_run", {"run_id": run_id, "answer": "maybe"})
        assert unclear.is_error
        assert "yes or no" in text(unclear)
        assert said in text(await client.call_tool("answer_run", {"run_id": run_id, "answer": word}))
        again = await client.call_tool("answer_run", {"run_id": run_id, "answer": word})
        assert again.is_error
        assert "list_runs" in text(again)


async def test_over_http_a_client_that_gives_up_stops_the_work(address: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with Client(address) as client:
        assert text(await client.call_tool("run_task", {"prompt": "coffee"})) == "coffee costs 4.50"
        giving_up = asyncio.create_task(client.call_tool("run_task", {"prompt": f"brew {mark}"}))
        for _ in range(200):
            if mark.exists():
                break
            await asyncio.sleep(0.05)
        assert mark.read_text() == "begun"
        giving_up.cancel()
        with suppress(asyncio.CancelledError):
            await giving_up
        for _ in range(200):
            if mark.read_text() == "stopped":
                break
            await asyncio.sleep(0.05)
    assert mark.read_text() == "stopped"


def test_over_http_another_name_for_this_machine_is_refused(address: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"Host": "evil.example", "Accept": "application/json, text/event-stream"}
    assert httpx.post(address, json=body, headers=headers, trust_env=False).status_code == 421


def test_a_port_that_is_taken_is_one_clear_line(free_port: int) -> None:
    said = f"127.0.0.1:{free_port} cannot be listened on: Address already in use"
    with socket.create_server(("127.0.0.1", free_port)), pytest.raises(ConfigError, match=said):
        listen("127.0.0.1", free_port)
