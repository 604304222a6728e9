"""Endpoints: policies that other servers answer for, and who is answered by which."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, MemoryConfig
from journeyman.agents.model import ModelRequest, StreamingModel
from journeyman.agents.worker import write_answer
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.live import current_policies
from journeyman.runtime.models.endpoints import ModelConfig, model_table
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import ConfigError, ModelError
from journeyman.traces.messages import Message
from journeyman.traces.trace import Task

REQUEST = ModelRequest(policy="big", messages=(Message(role="user", content="hi"),), timeout_s=60.0)
AGENT = Agent(name="worker", instructions="work")
REPLY = {
    "id": "1",
    "model": "qwen",
}
HERE = ScriptedModel(lambda request: "from here")


class Server:
    """Answers every chat request, slowly where it is told to."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[tuple[str, dict[str, Any]]] = []
        """Head and body of each request."""
        self.wait_s = 0.0
        self.reply = "from there"
        self.usage: dict[str, int] | None = {"prompt_tokens": 1, "completion_tokens": 2}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
            self.seen.append((head, json.loads(await reader.readexactly(length))))
            await asyncio.sleep(self.wait_s)
            choice = {"message": {"content": self.reply}, "finish_reason": "stop"}
            body = json.dumps({**REPLY, "choices": [choice], "usage": self.usage}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    there = Server()
    listener = await asyncio.start_server(there.handle, "127.0.0.1", 0)
    there.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    async with listener:
        yield there


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Workspace]:
    """Writes a project file; gives the workspace beside it."""

    def write(text: str) -> Workspace:
        (tmp_path / PROJECT_FILE).write_text(text)
        return Workspace(tmp_path / ".journeyman").create()

    return write


async def test_a_policy_with_a_row_is_another_endpoint_under_its_name_there(server: Server) -> None:
    config = ModelConfig(url=server.url, model="qwen", api_key_env="BIG_KEY", provider="acme")
    table = model_table(HERE, {"big": config}, {"BIG_KEY": "sk-secret"})
    reply = await table["big"].complete(REQUEST)
    ((head, body),) = server.seen
    assert (reply.content, reply.model, table["big"].provider) == ("from there", "qwen", "acme")
    assert (body["model"], "Authorization: Bearer sk-secret" in head) == ("qwen", True)
    assert "big" in table and "base" not in table
    assert (await table["worker@8"].complete(REQUEST)).content == "from here"
    assert isinstance(table["big"], StreamingModel)
    await table.aclose()


@pytest.mark.parametrize(
    ("base", "asked"),
    [
        ("", "/v1"),
        ("/v1/", "/v1"),
        ("/gateway", "/gateway/v1"),
        ("/api/v1", "/api/v1"),
        ("/v1beta/openai/", "/v1beta/openai"),
        ("/api/paas/v4", "/api/paas/v4"),
    ],
)
async def test_a_version_in_its_address_is_the_one_that_is_asked(server: Server, base: str, asked: str) -> None:
    table = model_table(HERE, {"big": ModelConfig(url=server.url.removesuffix("/v1") + base, model="qwen")})
    await table["big"].complete(REQUEST)
    assert server.seen[0][0].startswith(f"POST {asked}/chat/completions HTTP")
    await table.aclose()


async def test_nothing_is_asked_of_it_that_only_vllm_has(server: Server) -> None:
    table = model_table(HERE, {"big": ModelConfig(url=server.url, model="qwen")})
    tool = {"name": "add", "description": "adds", "parameters": {"type": "object"}}
    reply = await table["big"].complete(REQUEST.model_copy(update={"tools": (tool,)}))
    assert not {"logprobs", "return_token_ids"} & server.seen[0][1].keys()
    assert server.seen[0][1]["tools"] == [{"type": "function", "function": tool}]
    assert reply.token_ids is None
    await table.aclose()


async def test_it_has_no_more_time_than_its_row_gives_it(server: Server) -> None:
    server.wait_s = 5.0
    table = model_table(HERE, {"big": ModelConfig(url=server.url, model="qwen", retries=0, timeout_s=0.1)})
    with pytest.raises(ModelError, match=r"within 0.1 s") as caught:
        await table["big"].complete(REQUEST)
    assert caught.value.kind == "timeout"
    await table.aclose()


async def test_only_a_declared_teacher_demonstrates_and_its_terms_are_known_by_its_policy(server: Server) -> None:
    plain = ModelConfig(url=server.url, model="qwen")
    declared = plain.model_copy(update={"teacher": True, "terms": "no rivals"})
    table = model_table(HERE, {"big": declared, "small": plain})
    assert (table["big"].demonstrates, table["small"].demonstrates) == (True, False)
    assert table.with_others({"own": HERE}).terms == {"big": "no rivals"}


def test_a_key_that_is_not_set_is_told_by_its_variable() -> None:
    config = ModelConfig(url="http://127.0.0.1:1", model="qwen", api_key_env="BIG_KEY")
    with pytest.raises(ConfigError, match=r"models\.big: the API key for http://127\.0\.0\.1:1 holds a character"):
        model_table(HERE, {"big": config}, {"BIG_KEY": "two\nlines"})
    with pytest.raises(ConfigError, match=r"models\.big: export the key in BIG_KEY"):
        model_table(HERE, {"big": config}, {})


def test_what_was_promoted_gives_way_to_what_the_project_names(project: Callable[[str], Workspace]) -> None:
    place = project(
        '[models.big]\nurl = "http://127.0.0.1:1"\nmodel = "qwen"\n'
        '[agents.worker]\nfallback = ["big", "base"]\n[agents.planner]\npolicy = "big"\n'
    )
    journal = Journal(place.journal)
    for agent in ("worker", "planner"):
        journal.append(agent, "promote", f"{agent}@1", expected="base", digest="d" * 64, reason="better")
    table = current_policies(place)
    assert table.chain(AGENT) == ("worker@1", "big", "base")
    assert table.chain(AGENT.model_copy(update={"name": "planner"})) == ("big",)
    assert table.digests["worker@1"] == "d" * 64


def test_an_adapter_that_the_project_names_is_known_by_its_digest(
    project: Callable[[str], Workspace], make_adapter: Callable[[str], Path]
) -> None:
    place = project('[agents.worker]\npolicy = "worker@3"\n')
    make_adapter("worker@3")
    assert current_policies(place).digests["worker@3"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[agents.worker]\npolicy = "bgi"\n', "unknown policy 'bgi'; have base, and adapters"),
        ('[agents.worker]\nfallback = ["bgi"]\n', "unknown policy 'bgi'"),
        ('[routing]\nlarge = "bgi"\nclassifier = true\n', "unknown policy 'bgi'"),
        ('[routing]\nlarge = "base"\n', "nothing chooses"),
        ('[models.base]\nurl = "http://x:1"\nmodel = "qwen"\n', "choose another name"),
        ('[models.big]\nurl = "http://x:1"\n', "'models.big.model' is missing"),
    ],
)
def test_a_table_that_cannot_be_meant_is_told_by_its_key(
    project: Callable[[str], Workspace], text: str, complaint: str
) -> None:
    place = project(text)
    with pytest.raises(ConfigError, match=complaint):
        _ = place.config


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('model = "bgi"', "crew 'office', agent 'clerk': unknown policy 'bgi'; have base, big, and adapters such as"),
        ('fallback = ["big", "bgi"]', "crew 'office', agent 'clerk': unknown policy 'bgi'"),
        ('model = "big"\nfallback = ["base", "clerk@1"]', None),
    ],
)
def test_a_crew_may_name_only_policies_that_somebody_answers_for(
    project: Callable[[str], Workspace], tmp_path: Path, line: str, why: str | None
) -> None:
    place = project('[models.big]\nurl = "http://127.0.0.1:1"\nmodel = "qwen"\n')
    (tmp_path / "crew.toml").write_text(f'name = "office"\n[workers.clerk]\n{line}\n')
    if why is None:
        Runtime.open(tmp_path / "crew.toml", workspace=place).close()
        return
    with pytest.raises(ConfigError, match=why):
        Runtime.open(tmp_path / "crew.toml", workspace=place)


@pytest.mark.parametrize(("days", "shown"), [("1", ["hi", "from there", "hi"]), ("1e-9", ["hi"])])
async def test_the_project_says_how_long_its_crews_remember(
    project: Callable[[str], Workspace], server: Server, days: str, shown: list[str]
) -> None:
    table = f'[memory]\nkeep_days = {days}\n[models.big]\nurl = "{server.url}"\nmodel = "qwen"\n'
    clerk = Agent(name="clerk", instructions="Work.", model="big", output="text")
    crew = Crew(name="office", orchestrator=None, workers=(clerk,), memory=MemoryConfig())
    server.reply = write_answer("from there")
    async with Runtime.open(crew, workspace=project(table)) as runtime:
        for _ in range(2):
            outcome = await runtime.run(Task(id="t", prompt="hi", session="s"))
            assert outcome.status == "ok", outcome.error
    assert [message["content"] for message in server.seen[-1][1]["messages"][1:]] == shown


async def test_a_server_that_counts_no_tokens_is_counted_by_an_estimate(
    project: Callable[[str], Workspace], server: Server
) -> None:
    clerk = Agent(name="clerk", instructions="Work.", model="big", output="text")
    server.reply, server.usage = write_answer("a b c d e f g h"), None
    workspace = project(f'[models.big]\nurl = "{server.url}"\nmodel = "qwen"\n')
    async with Runtime.open(Crew(name="office", orchestrator=None, workers=(clerk,)), workspace=workspace) as runtime:
        outcome = await runtime.run(Task(id="t", prompt="hi"))
    assert outcome.status == "ok" and outcome.usage.input_tokens > 10 and outcome.usage.output_tokens > 4
