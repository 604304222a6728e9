"""`ChatVLLM` as LangChain uses it, against a real HTTP server that answers from a script."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel

from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.traces.errors import ConfigError, ModelError


class Server:
    """Gives the next of its replies to each request, the last one for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.replies: list[bytes] = [said("hello")]
        self.status = 200
        self.paths: list[str] = []
        self.bodies: list[Any] = []

    def answer(self, path: str, body: bytes) -> bytes:
        self.paths.append(path)
        self.bodies.append(json.loads(body))
        return self.replies[0] if len(self.replies) == 1 else self.replies.pop(0)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = there.answer(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(there.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        there = Server(f"http://127.0.0.1:{listener.server_port}")
        thread = Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        yield there
        listener.shutdown()
        thread.join()


@pytest.fixture
def model(server: Server) -> ChatVLLM:
    return ChatVLLM(base_url=server.url, retries=0)


def said(content: str, *, end: str = "stop", calls: tuple[tuple[str, str], ...] = ()) -> bytes:
    written = [
        {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": written}
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    choice = {"message": message, "finish_reason": "tool_calls" if calls else end}
    return json.dumps({"id": "chatcmpl-1", "model": "base", "choices": [choice], "usage": usage}).encode()


def streamed(*deltas: dict[str, Any], end: str = "stop") -> bytes:
    choices: list[dict[str, Any]] = [{"delta": delta} for delta in deltas] + [{"delta": {}, "finish_reason": end}]
    chunks: list[dict[str, Any]] = [{"choices": [choice]} for choice in choices]
    chunks.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    lines = (json.dumps({"id": "chatcmpl-1", "model": "base"} | chunk) for chunk in chunks)
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()


class TestStandardUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatVLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": "http://127.0.0.1:9"}


class Order(BaseModel):
    drink: str
    cups: int


@tool
def price(drink: str) -> str:
    """The price of a drink."""
    return f"{drink} costs 4.5 euros"


ORDER = '{"drink": "tea", "cups": 2}'
HISTORY = [HumanMessage("hi"), AIMessage("hello"), HumanMessage("tea?")]


def sent(server: Server, model: ChatVLLM, *messages: BaseMessage) -> list[dict[str, Any]]:
    model.invoke(list(messages))
    messages_sent: list[dict[str, Any]] = server.bodies[-1]["messages"]
    return messages_sent


CALL = {"name": "price", "args": {"drink": "tea"}, "id": "c1", "type": "tool_call"}
CALLED = {"id": "c1", "type": "function", "function": {"name": "price", "arguments": '{"drink": "tea"}'}}


@pytest.mark.parametrize(
    "answer",
    [
        # LangChain's standard blocks.
        AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "wait"}, CALL]),
        # Anthropic's, with and without what LangChain reads from them.
        AIMessage(
            [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "wait", "cache_control": {"type": "ephemeral"}},
                {"type": "tool_use", "id": "c1", "name": "price", "input": {"drink": "tea"}},
            ],
            tool_calls=[{"name": "price", "args": {"drink": "tea"}, "id": "c1"}],
        ),
        AIMessage(["wait", {"type": "tool_use", "id": "c1", "name": "price", "input": {"drink": "tea"}}]),
        # Bedrock's, and OpenAI's responses.
        AIMessage(
            [{"type": "reasoning_content", "reasoning_content": {"text": "hm"}}, {"type": "text", "text": "wait"}],
            tool_calls=[{"name": "price", "args": {"drink": "tea"}, "id": "c1"}],
        ),
        AIMessage(
            [
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "text", "text": "wait", "annotations": []},
                {
                    "type": "function_call",
                    "id": "fc_1",
                    "call_id": "c1",
                    "name": "price",
                    "arguments": '{"drink": "tea"}',
                },
            ]
        ),
        AIMessage([{"type": "non_standard", "value": {"type": "redacted_thinking", "data": "x"}}, "wait", CALL]),
    ],
)
def test_reasoning_of_other_providers_is_left_out_and_their_calls_are_kept(
    server: Server, model: ChatVLLM, answer: AIMessage
) -> None:
    result = ToolMessage([{"type": "text", "text": "4.5"}], tool_call_id="c1")
    _, answered, told = sent(server, model, HumanMessage("tea?"), answer, result)
    assert answered == {"role": "assistant", "content": "wait", "tool_calls": [CALLED]}
    assert told == {"role": "tool", "content": "4.5", "tool_call_id": "c1"}


def test_a_call_that_was_never_whole_is_left_out(server: Server, model: ChatVLLM) -> None:
    broken: Any = {"type": "invalid_tool_call", "name": "price", "args": '{"dri', "id": "c1", "error": "cut"}
    answer = AIMessage(["well", broken], invalid_tool_calls=[broken])
    assert sent(server, model, *HISTORY[:1], answer, *HISTORY[2:])[1] == {"role": "assistant", "content": "well"}


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage([{"type": "image", "url": "http://x/y.png"}]),
        HumanMessage([{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]),
        HumanMessage([{"type": "audio", "base64": "AA==", "mime_type": "audio/wav"}]),
        ToolMessage([{"type": "image", "base64": "AA==", "mime_type": "image/png"}], tool_call_id="c1"),
        AIMessage([{"type": "server_tool_call", "id": "s1", "name": "web_search", "args": {}}]),
        HumanMessage([{"type": "reasoning", "reasoning": "hm"}]),
    ],
)
def test_what_is_neither_text_nor_call_is_refused_in_one_line(
    server: Server, model: ChatVLLM, message: BaseMessage
) -> None:
    with pytest.raises(ConfigError, match=r"takes text only.*; describe it in words, or leave it out") as caught:
        model.invoke([message])
    assert "\n" not in str(caught.value) and server.bodies == []


@pytest.mark.parametrize(
    ("choice", "body"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("price", {"type": "function", "function": {"name": "price"}}),
        ({"type": "function", "function": {"name": "price"}}, {"type": "function", "function": {"name": "price"}}),
        ({"type": "tool", "name": "price"}, {"type": "function", "function": {"name": "price"}}),
    ],
)
def test_a_choice_of_tools_is_sent_in_the_api_s_words(server: Server, model: ChatVLLM, choice: Any, body: Any) -> None:
    server.replies = [said("", calls=(("price", '{"drink": "tea"}'),))]
    reply = model.bind_tools([price, Order], tool_choice=choice, parallel_tool_calls=False).invoke("tea?")
    assert [(call["name"], call["args"], call["id"]) for call in reply.tool_calls] == [
        ("price", {"drink": "tea"}, "c0")
    ]
    (asked,) = server.bodies
    assert (asked["tool_choice"], asked["parallel_tool_calls"]) == (body, False)
    assert [one["function"]["name"] for one in asked["tools"]] == ["price", "Order"]


@pytest.mark.parametrize(
    ("tools", "choice", "complaint"),
    [
        ([price], "sell", "tool_choice names 'sell', which isn't among the tools; have price"),
        ([{"type": "web_search"}], None, "ChatVLLM's tools are functions, not 'web_search'; leave that tool out"),
        ([{"properties": {}}], None, "a tool can't be described to the server: "),
    ],
)
def test_tools_that_cannot_be_offered_are_told_in_one_line(
    model: ChatVLLM, tools: list[Any], choice: Any, complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        model.bind_tools(tools, tool_choice=choice)
    assert str(caught.value).startswith(complaint) and "\n" not in str(caught.value)


def test_a_call_that_the_server_could_not_read_ends_a_stream(server: Server, model: ChatVLLM) -> None:
    server.replies = [streamed({"content": '<tool_call>{"name": "price", '})]
    with pytest.raises(ModelError, match="not complete, valid JSON"):
        list(model.bind_tools([price]).stream("tea?"))


def test_a_streamed_call_that_was_cut_off_is_no_call(server: Server, model: ChatVLLM) -> None:
    part = {"index": 0, "id": "c0", "function": {"name": "price", "arguments": '{"dri'}}
    server.replies = [streamed({"tool_calls": [part]}, end="length")]
    with pytest.raises(ModelError, match=r"unusable: .* it was cut off, so ask for it with more max_tokens"):
        list(model.bind_tools([price]).stream("tea?"))


def test_a_streamed_call_without_an_id_gets_one(server: Server, model: ChatVLLM) -> None:
    part = {"function": {"name": "price", "arguments": '{"drink": "tea"}'}}
    server.replies = [streamed({"tool_calls": [part]}, end="tool_calls")]
    whole = AIMessageChunk(content="")
    for chunk in model.bind_tools([price]).stream("tea?"):
        assert isinstance(chunk, AIMessageChunk)
        whole += chunk
    assert [(call["id"], call["args"]) for call in whole.tool_calls] == [("call-0", {"drink": "tea"})]


@pytest.mark.parametrize("fields", [{}, {"output_version": "v1"}])
def test_a_stream_without_an_event_loop_adds_up(server: Server, fields: dict[str, Any]) -> None:
    server.replies = [streamed({"content": "hel"}, {"content": "lo"})]
    chunks = list(ChatVLLM(base_url=server.url, **fields).stream("hi"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert (whole.text, [block["type"] for block in whole.content_blocks]) == ("hello", ["text"])
    assert whole.usage_metadata is not None and whole.usage_metadata["total_tokens"] == 7
    assert [chunk.usage_metadata for chunk in chunks].count(None) == len(chunks) - 1
    assert chunks[-1].chunk_position == "last"


async def test_a_stream_without_an_event_loop_may_run_inside_one(server: Server, model: ChatVLLM) -> None:
    server.replies = [streamed({"content": "hel"}, {"content": "lo"})]
    assert "".join(chunk.text for chunk in model.stream("hi")) == "hello"


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
def test_a_structured_reply_is_an_object_of_its_class_or_a_dict(server: Server, model: ChatVLLM, method: Any) -> None:
    called = method == "function_calling"
    server.replies = [said("", calls=(("Order", ORDER),)) if called else said(ORDER)]
    assert model.with_structured_output(Order, method=method).invoke("tea!") == Order(drink="tea", cups=2)
    schema = Order.model_json_schema()
    assert model.with_structured_output(schema, method=method).invoke("tea!") == {"drink": "tea", "cups": 2}
    asked = server.bodies[-1]
    if called:
        assert asked["tool_choice"]["function"] == {"name": "Order"}
        assert asked["tools"][0]["function"]["parameters"]["required"] == ["drink", "cups"]
    elif method == "json_schema":
        assert asked["response_format"]["json_schema"]["schema"] == schema
    else:
        assert asked["response_format"] == {"type": "json_object"}


def test_a_schema_needs_no_title_and_may_refer_to_itself(server: Server, model: ChatVLLM) -> None:
    server.replies = [said('{"under": [{"under": []}]}')]

    class Node(BaseModel):
        under: list["Node"]

    assert model.with_structured_output(Node).invoke("a tree") == Node(under=[Node(under=[])])
    untitled = {"type": "object", "properties": {"under": {"type": "array"}}}
    assert model.with_structured_output(untitled).invoke("a tree") == {"under": [{"under": []}]}
    assert server.bodies[-1]["response_format"]["json_schema"]["schema"] == untitled


def test_a_streamed_structured_reply_grows(server: Server, model: ChatVLLM) -> None:
    server.replies = [streamed({"content": '{"drink": "t'}, {"content": 'ea", "cups'}, {"content": '": 2}'})]
    grown = list(model.with_structured_output(Order.model_json_schema()).stream("tea!"))
    assert grown[0] == {"drink": "t"} and grown[-1] == {"drink": "tea", "cups": 2}
    assert list(model.with_structured_output(Order).stream("tea!")) == [Order(drink="tea", cups=2)]


CUT = "it was cut off before it was whole, so ask for it with more max_tokens"


@pytest.mark.parametrize(
    ("text", "end", "why"),
    [
        ('{"drink": "te', "length", CUT),
        ("tea, please", "stop", "it is not valid JSON"),
        ('{"drink": "tea"}', "stop", "'cups' is missing"),
        ('{"drink": "tea", "cups": "many"}', "stop", "'cups': Input should be a valid integer"),
    ],
)
def test_a_structured_reply_that_does_not_fit_is_told_in_one_line(
    server: Server, model: ChatVLLM, text: str, end: str, why: str
) -> None:
    server.replies = [said(text, end=end), said(text, end=end), streamed({"content": text}, end=end)]
    orders = model.with_structured_output(Order)
    with pytest.raises(OutputParserException, match=why) as caught:
        orders.invoke("tea!")
    assert "\n" not in str(caught.value) and isinstance(caught.value, ModelError)
    raw = model.with_structured_output(Order, include_raw=True).invoke("tea!")
    assert (raw["raw"].content, raw["parsed"]) == (text, None) and why in str(raw["parsing_error"])
    with pytest.raises(OutputParserException, match=why):
        list(orders.stream("tea!"))


def test_a_beginning_is_not_taken_for_a_dict(server: Server, model: ChatVLLM) -> None:
    """LangChain's own parser would close the brackets of a reply that was cut off."""
    server.replies = [said('{"drink": "te', end="length")]
    with pytest.raises(OutputParserException, match=CUT):
        model.with_structured_output(Order.model_json_schema()).invoke("tea!")


def test_include_raw_gives_the_message_beside_the_object(server: Server, model: ChatVLLM) -> None:
    server.replies = [said(ORDER)]
    raw = model.with_structured_output(Order, include_raw=True).invoke("tea!")
    assert (raw["raw"].content, raw["parsed"], raw["parsing_error"]) == (ORDER, Order(drink="tea", cups=2), None)


def test_an_agent_calls_its_tools_and_gives_a_structured_response(server: Server, model: ChatVLLM) -> None:
    server.replies = [said("", calls=(("price", '{"drink": "tea"}'),)), said("", calls=(("Order", ORDER),))]
    agent = create_agent(model, [price], response_format=Order, system_prompt="You sell drinks.")
    state = agent.invoke({"messages": [HumanMessage("Two teas, please.")]})
    assert state["structured_response"] == Order(drink="tea", cups=2)
    first, second = server.bodies
    assert (first["tool_choice"], [one["role"] for one in second["messages"]]) == (
        "required",
        ["system", "user", "assistant", "tool"],
    )
    assert second["messages"][-1] == {"role": "tool", "content": "tea costs 4.5 euros", "tool_call_id": "c0"}


async def test_an_agent_s_words_are_streamed_and_its_calls_made(server: Server, model: ChatVLLM) -> None:
    part = {"index": 0, "id": "c0", "function": {"name": "price", "arguments": '{"drink": "tea"}'}}
    server.replies = [streamed({"tool_calls": [part]}, end="tool_calls"), streamed({"content": "4"}, {"content": ".5"})]
    agent = create_agent(model, [price])
    shown = [
        message.text
        async for message, _ in agent.astream({"messages": [HumanMessage("tea?")]}, stream_mode="messages")
        if isinstance(message, AIMessageChunk) and message.text
    ]
    assert shown == ["4", ".5"]


def test_an_agent_may_have_its_response_decoded_under_the_schema(server: Server, model: ChatVLLM) -> None:
    server.replies = [said(ORDER)]
    agent = create_agent(model, [], response_format=ProviderStrategy(Order))
    assert agent.invoke({"messages": [HumanMessage("tea!")]})["structured_response"] == Order(drink="tea", cups=2)
    assert server.bodies[0]["response_format"]["type"] == "json_schema"


def test_tokens_are_counted_by_the_server(server: Server) -> None:
    server.replies = [json.dumps({"count": 3, "max_model_len": 2048, "tokens": [7, 8, 9]}).encode()]
    model = ChatVLLM(base_url=f"{server.url}/v1", model="clerk@3")
    assert (model.get_num_tokens("two teas"), model.get_token_ids("two teas")) == (3, [7, 8, 9])
    assert server.bodies[0] == {"model": "clerk@3", "prompt": "two teas", "add_special_tokens": False}
    assert model.get_num_tokens_from_messages([HumanMessage("tea?")], tools=[price]) == 3
    asked = server.bodies[-1]
    assert asked["messages"] == [{"role": "user", "content": "tea?"}]
    assert [one["function"]["name"] for one in asked["tools"]] == ["price"]
    assert set(server.paths) == {"/tokenize"}


@pytest.mark.parametrize(("status", "body"), [(404, b'{"detail": "Not Found"}'), (200, b"{}")])
def test_a_server_that_cannot_count_says_what_helps(server: Server, model: ChatVLLM, status: int, body: bytes) -> None:
    server.status, server.replies = status, [body]
    with pytest.raises(ModelError, match=r"at /tokenize: .*; only vLLM counts .* custom_get_token_ids"):
        model.get_num_tokens("two teas")
    own = ChatVLLM(base_url=server.url, custom_get_token_ids=lambda text: list(range(len(text))))
    assert own.get_num_tokens("tea") == 3


def test_defaults_and_further_keys_go_with_each_call(server: Server) -> None:
    model = ChatVLLM(base_url=server.url, stop=["a"], timeout=7, max_retries=1, model_kwargs={"top_p": 0.9})
    model.invoke("hi")
    model.invoke("hi", stop=["b"], top_p=0.5, model="clerk@3")
    model.invoke("hi", stop=[])
    first, second, third = server.bodies
    assert (first["stop"], first["top_p"], first["model"]) == (["a"], 0.9, "base")
    assert (second["stop"], second["top_p"], second["model"]) == (["b"], 0.5, "clerk@3")
    assert "stop" not in third and (model.timeout_s, model.retries) == (7, 1)


def test_keys_of_tools_are_sent_with_tools_only(server: Server) -> None:
    model = ChatVLLM(base_url=server.url, model_kwargs={"parallel_tool_calls": False})
    model.invoke("hi")
    model.bind_tools([price]).invoke("hi")
    assert ["parallel_tool_calls" in body for body in server.bodies] == [False, True]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"top_p": 0.9}, "top_p.*; further keys of the API go into model_kwargs"),
        ({"max_tokens": 0}, "'max_tokens': Input should be greater"),
    ],
)
def test_a_field_that_cannot_be_is_a_config_error(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        ChatVLLM(base_url="http://127.0.0.1:9", **fields)
    assert "\n" not in str(caught.value)


def test_a_setting_of_a_call_that_cannot_be_is_a_config_error(model: ChatVLLM) -> None:
    with pytest.raises(ConfigError, match="'temperature'"):
        model.invoke("hi", temperature="hot")


def test_a_cache_of_langchain_s_tells_models_apart_by_all_that_an_answer_depends_on() -> None:
    settings: tuple[dict[str, Any], ...] = ({}, {"max_tokens": 9}, {"stop": ["a"]}, {"model_kwargs": {"top_p": 0.9}})
    models = [ChatVLLM(base_url="http://127.0.0.1:9", **fields) for fields in settings]
    assert len({model._get_llm_string() for model in models}) == len(models)
