"""The tools of a real MCP server are tools like any other, over stdio and over HTTP, and survive its death."""

import asyncio
import gc
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import pytest

from journeyman.tools.call import CallResult, call_tool
from journeyman.tools.mcp.toolset import mcp
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError

SERVER = str(Path(__file__).with_name("mcp_server.py"))
COMMAND = [sys.executable, SERVER]


def named(tools: tuple[Tool, ...]) -> dict[str, Tool]:
    return {tool.name: tool for tool in tools}


async def called(tool: Tool, **arguments: object) -> CallResult:
    return await call_tool(tool, arguments)


@pytest.fixture(scope="module")
def local() -> Iterator[dict[str, Tool]]:
    yield named(mcp(command=COMMAND, max_seconds=2))
    gc.collect()


class _Served:
    """The same server over HTTP, which can be stopped and started again on its port."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([*COMMAND, str(self.port)], stderr=subprocess.DEVNULL)
        for _ in range(300):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def web() -> Iterator[_Served]:
    served = _Served()
    yield served
    served.stop()


def test_the_server_s_names_descriptions_and_schemas_are_the_tools(local: dict[str, Tool]) -> None:
    add, go = local["add"], local["go_to_place"]
    assert add.description == "Adds two numbers."
    assert add.parameters["required"] == ["a"]
    assert "$ref" not in str(go.parameters) and "$defs" not in go.parameters
    assert go.parameters["properties"]["place"]["properties"]["name"]["type"] == "string"


async def test_a_call_gives_text_and_a_mistake_never_reaches_the_server(local: dict[str, Tool]) -> None:
    assert await called(local["add"], a=1, b=2) == CallResult(status="ok", content="3")
    assert (await called(local["add"], a="x")).content == "add was not called: a: 'x' is not of type 'integer'"
    assert (await called(local["add"])).status == "invalid"
    assert (await called(local["go_to_place"], place={"name": "Bern", "within": None})).content == "went to Bern"
    assert (await called(local["go_to_place"], place={"name": 3})).status == "invalid"
    assert "no luck today" in (await called(local["fail"])).content
    assert (await called(local["fail"])).status == "failed"


async def test_calls_run_side_by_side_and_end_at_their_limit(local: dict[str, Tool]) -> None:
    started = perf_counter()
    all_of_them = await asyncio.gather(*(called(local["wait"], seconds=0.5) for _ in range(8)))
    assert {one.content for one in all_of_them} == {"waited"}
    assert perf_counter() - started < 2
    assert "did not answer in 2 s" in (await called(local["wait"], seconds=30)).content


async def test_a_cancelled_call_is_cancelled_at_the_server(local: dict[str, Tool]) -> None:
    call = asyncio.create_task(called(local["wait"], seconds=30))
    await _until_waiting(local, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await _until_waiting(local, 0)


async def _until_waiting(tools: dict[str, Tool], number: int) -> None:
    async with asyncio.timeout(5):
        while (await called(tools["waiting"])).content != str(number):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_one_connection_serves_every_event_loop(local: dict[str, Tool]) -> None:
    first, second = (asyncio.run(called(local["process"])).content for _ in range(2))
    assert first == second and first.isdigit()


async def test_a_server_that_dies_is_started_again_for_the_next_call(local: dict[str, Tool], tmp_path: Path) -> None:
    before = (await called(local["process"])).content
    lost = await called(local["die"])
    assert lost.status == "failed" and "nobody knows whether the call was carried out" in lost.content
    after = await called(local["process"])
    assert after.status == "ok" and after.content != before
    # Only a tool that the server calls read-only is called a second time.
    assert await called(local["die_once"], mark=str(tmp_path / "mark")) == CallResult(status="ok", content="alive")


async def test_a_server_killed_between_two_calls_costs_no_call(local: dict[str, Tool]) -> None:
    before = (await called(local["process"])).content
    await asyncio.to_thread(subprocess.run, ["kill", "-9", before], check=True)
    await asyncio.sleep(0.3)
    after = await called(local["process"])
    assert after.status == "ok" and after.content != before


def test_a_process_gets_the_variables_that_are_named_and_ends_with_its_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_FOR_IT", "given")
    monkeypatch.setenv("SECRET_OF_OURS", "kept")
    tools = named(mcp(command=COMMAND, env=["TOKEN_FOR_IT"], tools=["variable", "process"]))
    assert list(tools) == ["variable", "process"]
    assert asyncio.run(called(tools["variable"], name="TOKEN_FOR_IT")).content == "given"
    assert asyncio.run(called(tools["variable"], name="SECRET_OF_OURS")).content == "unset"
    process = Path("/proc") / asyncio.run(called(tools["process"])).content
    assert process.exists()
    del tools
    gc.collect()
    assert not process.exists()


async def test_over_http_it_is_the_same_and_a_restart_is_survived(web: _Served) -> None:
    tools = named(mcp(url=web.url, max_seconds=5))
    assert (await called(tools["add"], a=1, b=2)).content == "3"
    before = (await called(tools["process"])).content
    with pytest.raises(ConfigError, match="no tool 'fly'; it has: add,"):
        mcp(url=web.url, tools=["fly"])
    web.stop()
    web.start()
    answers = [await called(tools["process"]) for _ in range(2)]
    assert answers[-1].status == "ok" and answers[-1].content != before


class _Forgetful(BaseHTTPRequestHandler):
    """A server of the protocol's older form, which keeps sessions, until it forgets them."""

    session = 0
    calls = 0

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        known = self.headers["mcp-session-id"] == str(_Forgetful.session)
        said: dict[str, Any] = {}
        match asked["method"]:
            case "initialize":
                version, who = asked["params"]["protocolVersion"], {"name": "old", "version": "1"}
                said = {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": who}}
            case "tools/list":
                said = {"result": {"tools": [{"name": "book", "inputSchema": {"type": "object"}}]}}
            case "tools/call" if known:
                _Forgetful.calls += 1
                said = {"result": {"content": [{"type": "text", "text": "booked"}]}}
            case "tools/call":
                self._answer(404, b"")
                return
            case _:
                said = {"error": {"code": -32601, "message": "no such method"}}
        body = json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), **said}).encode()
        self._answer(200 if "id" in asked else 202, body)

    def do_GET(self) -> None:
        self._answer(405, b"")

    def do_DELETE(self) -> None:
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("mcp-session-id", str(_Forgetful.session))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


async def test_a_server_that_has_forgotten_the_session_is_asked_anew_and_does_it_once() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    (book,) = await asyncio.to_thread(mcp, url=f"http://127.0.0.1:{server.server_address[1]}/mcp", max_seconds=5)
    _Forgetful.session += 1
    assert await called(book) == CallResult(status="ok", content="booked")
    assert _Forgetful.calls == 1
    server.shutdown()
    server.server_close()
    thread.join()


LIAR = str(Path(__file__).with_name("mcp_liar.py"))


def lying(wrong: str, connect_seconds: float = 10.0) -> dict[str, Tool]:
    return named(mcp(command=[sys.executable, LIAR, wrong], max_seconds=2, connect_seconds=connect_seconds))


def test_names_that_no_crew_could_use_are_made_usable() -> None:
    assert list(lying("named")) == ["_2fa", "_answer", "a_b"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("refuses", "shop: the shop is closed"),
        ("odd", "shop: the server's answer is none of the protocol's: 'content'"),
    ],
)
async def test_what_a_server_answers_amiss_is_a_failed_result_of_one_line(wrong: str, said: str) -> None:
    shop = (await asyncio.to_thread(lying, wrong))["shop"]
    first, second = await called(shop), await called(shop)
    assert first == second
    assert first.status == "failed" and first.content.startswith(said) and "\n" not in first.content


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("bare", "the MCP server has no tools: name another command or address"),
        ("endless", "the server did not answer in 1 s"),
    ],
)
def test_a_server_that_cannot_list_its_tools_is_a_config_error(wrong: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        lying(wrong, connect_seconds=1)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: mcp(), "either a command or a url"),
        (lambda: mcp(command=COMMAND, url="http://x"), "either a command or a url"),
        (lambda: mcp(command=["no-such-program", "--token=hush"]), "no-such-program cannot be reached"),
        (lambda: mcp(command=COMMAND, tools=[]), "tools is empty: name some, or leave it out"),
        (lambda: mcp(command=["true"]), "cannot be reached: Connection closed"),
        (lambda: mcp(command=["sleep", "9"], connect_seconds=0.2), "no answer in 0.2 s"),
        (lambda: mcp(url="http://127.0.0.1:1/mcp?key=hush"), "127.0.0.1:1/mcp cannot be reached"),
        (lambda: mcp(url="http://x", headers={"A": "${NOT_THERE}"}), "no variable 'NOT_THERE'"),
        (lambda: mcp(command=COMMAND, env=["NOT_THERE"]), "no variable 'NOT_THERE'"),
    ],
)
def test_a_server_that_cannot_be_used_is_a_config_error(make: Callable[[], object], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as raised:
        make()
    assert "hush" not in str(raised.value)


def test_a_secret_that_no_header_can_hold_is_refused_unquoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hush\nhush")
    with pytest.raises(ConfigError, match="the header Authorization holds a character") as raised:
        mcp(url="http://127.0.0.1:1/mcp", headers={"Authorization": "Bearer ${TOKEN}"})
    assert "hush" not in str(raised.value)


def test_a_server_that_prints_what_is_no_message_is_heard_and_fills_no_terminal() -> None:
    code = (
        "import asyncio; from journeyman.tools.mcp.toolset import mcp; from journeyman.tools.call import call_tool\n"
        f"(shop,) = mcp(command={[sys.executable, LIAR, 'chatty']!r})\n"
        "print(asyncio.run(call_tool(shop, {})).content)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("sold\n", "")
