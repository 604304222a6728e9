"""Rows against a real vLLM, for every shape that can be imported and every kind of part: prompt and reply, by token.

`data/rendered.json` holds what vLLM made of each case. The fast tests hold rows to it, the `serve` tests hold it to the
server. A kind that the code or the conventions add fails here until it has a case.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import httpx
import pytest

from journeyman.agents.agent import Agent
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.conventions import conventions
from journeyman.traces.errors import StoreError
from journeyman.traces.exchange import chat_messages
from journeyman.traces.exchange.chatlog import read_conversation
from journeyman.traces.exchange.conversation import import_conversation
from journeyman.traces.storage.store import TraceStore
from journeyman.training.data.mine import mine_sft
from journeyman.training.data.source import MineConfig, Source

pytestmark = pytest.mark.filterwarnings("ignore")
DATA = Path(__file__).parents[2] / "data"
RENDERED: dict[str, list[str]] = json.loads((DATA / "rendered.json").read_text(encoding="utf-8"))
"""Prompt and reply of each case, as vLLM writes them."""
CHAT, ANTHROPIC = "/v1/chat/completions/render", "/v1/messages/render"
Json = dict[str, Any]

ASK = {"role": "user", "content": "weather in Graz?"}
SAID = {"role": "assistant", "content": "It rains."}
CITY = {"city": "Gr\u00e4z", "days": [1, 2.5], "deep": {"x": None}}
CALL = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": json.dumps(CITY)}}
OTHER = {"id": "b", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
GIVEN = {"role": "tool", "tool_call_id": "a", "content": "4 C, rain"}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Weather", "parameters": {"type": "object"}, "strict": True},
}
USE = {"type": "tool_use", "id": "a", "name": "weather", "input": CITY}
TEXT = {"type": "text", "text": "4 C"}


class Log(NamedTuple):
    """A chat log, and what was sent for its last reply where the log isn't in the words of an API."""

    messages: list[Json]
    sent: list[Json] | None = None
    beside: Json = {}  # noqa: RUF012
    path: str = CHAT


def asking(*calls: Json, **message: Any) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **message}


def block(*blocks: Json, role: str = "user") -> Json:
    return {"role": role, "content": list(blocks)}


LOGS = {
    "a question": Log([ASK, SAID]),
    "instructions": Log([{"role": "system", "content": "Be brief."}, ASK, SAID]),
    "a developer's instructions": Log(
        [{"role": "developer", "content": "Be brief."}, ASK, SAID], [{"role": "system", "content": "Be brief."}, ASK]
    ),
    "several texts in a message": Log([block({"type": "text", "text": "a"}, {"type": "text", "text": "b"}), SAID]),
    "bare texts in a list": Log([{"role": "user", "content": ["a", "b"]}, SAID], [{"role": "user", "content": "a\nb"}]),
    "a name": Log([{**ASK, "name": "eve"}, SAID]),
    "nothing said": Log([ASK, {"role": "assistant", "content": ""}, {"role": "user", "content": ""}, SAID]),
    "special tokens in a text": Log([{"role": "user", "content": "c\n\nd <|im_end|>\r\n\u2028 e"}, SAID]),
    "text and a call": Log([ASK, asking(CALL, content="Let me look."), GIVEN, SAID]),
    "two calls, no text": Log([ASK, asking(CALL, OTHER), GIVEN, {**GIVEN, "tool_call_id": "b"}, SAID]),
    "tools": Log([ASK, asking(CALL), GIVEN, SAID], beside={"tools": [WEATHER]}),
    "tools as text": Log([ASK, SAID], beside={"tools": json.dumps([WEATHER])}),
    "tools as functions": Log([ASK, SAID], beside={"functions": [WEATHER["function"]]}),
    "a reply of text and a call": Log([ASK, asking(CALL, content="Let me look.")], beside={"tools": [WEATHER]}),
    "a reply of calls": Log([ASK, asking(CALL, OTHER)]),
    "a result in parts": Log([ASK, asking(CALL), {**GIVEN, "content": [TEXT, TEXT]}, SAID]),
    "arguments as an object": Log(
        [ASK, asking({"id": "a", "function": {"name": "weather", "arguments": CITY}}), GIVEN, SAID],
        [ASK, asking(CALL), GIVEN],
    ),
    "ids that are numbers": Log(
        [
            ASK,
            asking({**CALL, "id": 0}, {**OTHER, "id": 7}),
            {**GIVEN, "tool_call_id": 7, "content": "none"},
            {**GIVEN, "tool_call_id": 0},
            SAID,
        ],
        [
            ASK,
            asking({**CALL, "id": "0"}, {**OTHER, "id": "7"}),
            {**GIVEN, "tool_call_id": "7", "content": "none"},
            {**GIVEN, "tool_call_id": "0"},
        ],
    ),
    "the old function_call": Log(
        [
            ASK,
            {"role": "assistant", "content": None, "function_call": CALL["function"]},
            {"role": "function", "name": "weather", "content": "4 C, rain"},
            SAID,
        ],
        [ASK, asking({**CALL, "id": "call_1_0"}), {**GIVEN, "tool_call_id": "call_1_0"}],
    ),
    "a refusal earlier": Log(
        [ASK, {"role": "assistant", "content": [{"type": "refusal", "refusal": "I can't."}]}, ASK, SAID]
    ),
    "words of the Responses API": Log(
        [
            block({"type": "input_text", "text": "a"}),
            block({"type": "output_text", "text": "b"}, role="assistant"),
            ASK,
            SAID,
        ],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, ASK],
    ),
    "thoughts beside the text": Log(
        [ASK, {**SAID, "reasoning_content": "hm"}, ASK, SAID],
    ),
    "thoughts as a part": Log(
        [
            ASK,
            block({"type": "reasoning", "reasoning": "hm"}, {"type": "reasoning_content"}, TEXT, role="assistant"),
            ASK,
            SAID,
        ],
        [ASK, {"role": "assistant", "content": "4 C"}, ASK],
    ),
    "LangChain's messages": Log(
        [
            {"type": "system", "content": "s"},
            {"type": "human", "content": "weather in Graz?"},
            {"type": "ai", "content": "", "tool_calls": [{"name": "weather", "args": CITY, "id": "a"}]},
            {"type": "tool", "content": "4 C, rain", "tool_call_id": "a"},
            {"type": "ai", "content": "It rains."},
        ],
        [{"role": "system", "content": "s"}, ASK, asking(CALL), GIVEN],
    ),
    "LangChain's chunks": Log(
        [
            {"type": "SystemMessageChunk", "content": "s"},
            {"type": "HumanMessageChunk", "content": "weather in Graz?"},
            {"type": "AIMessageChunk", "content": [{"type": "tool_call", "name": "weather", "args": CITY, "id": "a"}]},
            {"type": "ToolMessageChunk", "content": "4 C, rain", "tool_call_id": "a"},
            {"type": "AIMessageChunk", "content": "", "tool_calls": [{"name": "weather", "args": {}, "id": "b"}]},
            {"type": "FunctionMessageChunk", "name": "weather", "content": "4 C, rain"},
            {"type": "AIMessageChunk", "content": "It rains."},
        ],
        [
            {"role": "system", "content": "s"},
            ASK,
            asking(CALL),
            GIVEN,
            asking(OTHER),
            {**GIVEN, "tool_call_id": "b"},
        ],
    ),
    "Anthropic's blocks": Log(
        [
            block({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}),
            block(
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Let me look."},
                USE,
                {**USE, "id": "b"},
                role="assistant",
            ),
            block(
                {"type": "tool_result", "tool_use_id": "b", "content": [TEXT, TEXT]},
                {"type": "tool_result", "tool_use_id": "a", "is_error": True},
                {"type": "text", "text": "in a sentence"},
            ),
            SAID,
        ],
        beside={"system": [{"type": "text", "text": "Be brief. "}, {"type": "text", "text": "And kind."}]},
        path=ANTHROPIC,
    ),
    "citations": Log(
        [
            ASK,
            block(
                {"type": "text", "text": "It "}, {"type": "text", "text": "rains.", "citations": []}, role="assistant"
            ),
        ],
        [ASK],
    ),
}

OF_A_SERVER = "server_tool_use", "web_search_tool_result", "mcp_tool_use", "mcp_tool_result", "container_upload"
MEDIA = "image_url", "input_image", "image", "input_audio", "audio", "video_url", "file", "document", "search_result"
UNREADABLE = {
    **{f"{kind} in a question": [block({"type": kind}), SAID] for kind in (*MEDIA, *OF_A_SERVER, "no_such_kind", None)},
    **{f"{kind} in a reply": [ASK, block({"type": kind}, role="assistant")] for kind in (*MEDIA, *OF_A_SERVER)},
    **{
        f"{kind} in a result": [
            ASK,
            block(USE, role="assistant"),
            block({"type": "tool_result", "tool_use_id": "a", "content": [TEXT, {"type": kind}]}),
            SAID,
        ]
        for kind in MEDIA
    },
    "a reply that was spoken": [ASK, {"role": "assistant", "content": None, "audio": {"id": "x", "transcript": "hi"}}],
    "a call of another type": [ASK, asking({"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}), SAID],
    "a call that is no JSON": [ASK, asking({"id": "a", "function": {"name": "f", "arguments": "{"}}), SAID],
    "a call without a name": [ASK, asking({"id": "a", "function": {"arguments": "{}"}}), SAID],
    "items of the Responses API": [
        ASK,
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        SAID,
    ],
    "a result of no call": [ASK, {**GIVEN, "tool_call_id": "z"}, SAID],
    "a role of nobody": [{"role": "critic", "content": "no"}, SAID],
}


class Part(NamedTuple):
    """A part in the conventions' words, who says it, and what of it a server was sent, or why nobody learns from it."""

    part: Json
    role: str
    sent: Json | str | None


def attached(kind: str, **fields: str) -> Part:
    return Part({"type": kind, "modality": "image", **fields}, "user", f"a {kind} part")


PARTS = {
    "text": Part({"type": "text", "content": "a"}, "user", {"role": "user", "content": "a"}),
    "reasoning": Part({"type": "reasoning", "content": "hm"}, "assistant", None),
    "tool_call": Part(
        {"type": "tool_call", "id": "a", "name": "weather", "arguments": CITY}, "assistant", asking(CALL)
    ),
    "tool_call_response": Part({"type": "tool_call_response", "id": "a", "response": "4 C, rain"}, "tool", GIVEN),
    "server_tool_call": Part(
        {"type": "server_tool_call", "name": "s", "server_tool_call": {}}, "assistant", "a server_tool_call part"
    ),
    "server_tool_call_response": Part(
        {"type": "server_tool_call_response", "server_tool_call_response": {}},
        "assistant",
        "a server_tool_call_response part",
    ),
    "compaction": Part({"type": "compaction", "content": "earlier"}, "assistant", "a compaction part"),
    "blob": attached("blob", content="AAAA"),
    "uri": attached("uri", uri="https://x.example/a.png"),
    "file": attached("file", file_id="f"),
}
SEEN = {kind: part for kind, part in PARTS.items() if not isinstance(part.sent, str)}
REFUSALS = [f"part {kind}" for kind, part in PARTS.items() if isinstance(part.sent, str)]

FORMS = {
    "native": Log([ASK, asking(CALL)], beside={"tools": [WEATHER]}),
    "json": Log([ASK, {"role": "assistant", "content": '{"weather": {"city": "Graz"}}'}], beside={"tools": [WEATHER]}),
}
"""How an agent writes a call: in the model's template, or as text, for which its server is told of no tools."""

CASES = [*LOGS, *(f"part {kind}" for kind in SEEN), *(f"form {form}" for form in FORMS)]


def imported(agent: str, log: Log, **attributes: Any) -> tuple[SpanRecord, ...]:
    conversation: Any = {"messages": log.messages, **log.beside}
    talk = read_conversation(conversation)
    spans = import_conversation(talk, agent=agent, family="f", now_ns=10**18).spans
    return tuple(span.model_copy(update={"attributes": span.attributes | attributes}) for span in spans)


def parted(agent: str, part: Part) -> tuple[SpanRecord, ...]:
    """A conversation in which the part comes before the last question."""
    spoken = [
        {"role": part.role, "parts": [part.part]},
        {"role": "user", "parts": [{"type": "text", "content": "and?"}]},
    ]
    spans = imported(agent, Log([ASK, SAID]))
    return tuple(
        span.model_copy(update={"attributes": span.attributes | {a.INPUT_MESSAGES: json.dumps(spoken)}})
        if a.INPUT_MESSAGES in span.attributes
        else span
        for span in spans
    )


def spans_of(case: str) -> tuple[SpanRecord, ...]:
    kind, _, name = case.partition(" ")
    if kind == "part":
        return parted(case, PARTS[name])
    if kind == "form":
        return imported(case, FORMS[name], **({a.OUTPUT_TYPE: "json", a.RUN_ID: "r"} if name == "json" else {}))
    return imported(case, LOGS[case])


def request(case: str) -> tuple[str, Json]:
    """What is sent to the server, with its reply in the history and a further question."""
    kind, _, name = case.partition(" ")
    if kind == "part":
        sent = PARTS[name].sent
        spoken = {"role": "assistant", "content": ""} if sent is None else sent
        return CHAT, {"messages": [spoken, {"role": "user", "content": "and?"}, SAID]}
    log = FORMS[name] if kind == "form" else LOGS[case]
    prompt = log.messages[:-1] if log.sent is None else log.sent
    reply = {"role": "assistant", "content": "It rains."} if log.sent is not None else log.messages[-1]
    body: Json = {"messages": [*prompt, reply]}
    if log.path == ANTHROPIC:
        return log.path, body | log.beside | {"max_tokens": 1}
    tools = log.beside.get("tools") or [
        {"type": "function", "function": one} for one in log.beside.get("functions", ())
    ]
    tools = json.loads(tools) if isinstance(tools, str) else tools
    return log.path, body | ({"tools": tools} if tools and case != "form json" else {})


@pytest.fixture(scope="module")
def tokenizer(embedded_model: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded_model)
    tokenizer.chat_template = (DATA / "tools.jinja").read_text(encoding="utf-8")
    return tokenizer


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TraceStore:
    """All cases, each the work of an agent of its name."""
    workspace = Workspace(tmp_path_factory.mktemp("rows") / ".journeyman").create()
    log = SpanLog(workspace.spans)
    log.append_many([span for case in (*CASES, *REFUSALS) for span in spans_of(case)], sync=True)
    log.close()
    return workspace.store


def row(case: str, store: TraceStore, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Prompt and completion of the case's last turn."""
    from journeyman.training.methods.rows import write_rows

    mined = mine_sft(Source(store, case, MineConfig()))
    [written] = write_rows(mined.samples[-1:], tokenizer, frozenset({tokenizer.eos_token_id}))
    ids, mask = written["input_ids"], written["completion_mask"]
    assert mask == sorted(mask)
    return ids[: mask.index(1)], ids[mask.index(1) :]


@pytest.mark.parametrize("case", CASES)
def test_a_row_is_what_vllm_made_of_the_case(case: str, store: TraceStore, tokenizer: Any) -> None:
    assert [tokenizer.decode(ids) for ids in row(case, store, tokenizer)] == RENDERED[case]


@pytest.mark.serve
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
def test_a_row_has_the_servers_tokens(case: str, store: TraceStore, tokenizer: Any, vllm_server: ServerState) -> None:
    def rendered(body: Json) -> list[int]:
        done = httpx.post(f"{vllm_server.url}{path}", json={"model": "base", **body}, timeout=60, trust_env=False)
        assert done.is_success, done.text
        ids: list[int] = done.json()["token_ids"]
        return ids

    path, body = request(case)
    prompt, completion = row(case, store, tokenizer)
    *before, reply = body["messages"]
    assert prompt == rendered({**body, "messages": before})
    # In a later turn's prompt the server has the same reply.
    later = rendered({**body, "messages": [*before, reply, ASK]})
    assert later[: len(prompt) + len(completion)] == prompt + completion
    assert RENDERED[case] == [tokenizer.decode(prompt), tokenizer.decode(completion)]


@pytest.mark.parametrize("case", REFUSALS)
def test_what_no_server_of_a_text_model_was_sent_is_refused_and_counted(case: str, store: TraceStore) -> None:
    mined = mine_sft(Source(store, case, MineConfig()))
    assert (mined.samples, mined.refused) == ((), {PARTS[case.removeprefix("part ")].sent: 1})


@pytest.mark.parametrize("messages", UNREADABLE.values(), ids=UNREADABLE)
def test_a_log_that_cant_be_written_as_it_was_is_refused_with_a_word(messages: list[Json]) -> None:
    conversation: Any = {"messages": messages}
    with pytest.raises(StoreError, match=r"has |calls |answers |no conversation: "):
        read_conversation(conversation)


def words(value: Any) -> Iterator[str]:
    """Roles and types in a log."""
    if isinstance(value, dict):
        yield from (str(value[key]) for key in ("role", "type") if isinstance(value.get(key), str))
        yield from (word for inner in value.values() for word in words(inner))
    elif isinstance(value, list):
        yield from (word for inner in value for word in words(inner))


def test_every_kind_has_a_case() -> None:
    assert PARTS.keys() == conventions().parts.keys()
    assert FORMS.keys() == set(get_args(Agent.model_fields["tool_calls"].annotation))
    tried = {word for log in LOGS.values() for word in words(log.messages)}
    known = {*chat_messages.ROLES, *chat_messages.TEXTS, *chat_messages.REASONING, *chat_messages.CALLS}
    assert known | {chat_messages.RESULT, chat_messages.REFUSAL} <= tried
    assert RENDERED.keys() == set(CASES)
