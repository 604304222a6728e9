"""What LangChain binds to a call: tools, which of them must be called, a schema, and who reads what comes back."""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers.transform import BaseCumulativeTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.json import parse_partial_json
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ValidationError

from journeyman.agents.reply import UnreadableReplyError, read_json
from journeyman.traces.base import first_mistake
from journeyman.traces.errors import ConfigError, ModelError, in_one_line

Tool = Mapping[str, Any] | type | Callable[..., Any] | BaseTool
Schema = dict[str, Any] | type
Method = Literal["json_schema", "function_calling", "json_mode"]


def chat_tools(tools: Sequence[Tool], *, strict: bool | None = None) -> list[dict[str, Any]]:
    """The tools as the API has them; raises `ConfigError` for what isn't a function that it can be told of."""
    described = [_chat_tool(tool, strict) for tool in tools]
    for tool in described:
        if tool.get("type") != "function":
            raise ConfigError(f"ChatVLLM's tools are functions, not {tool.get('type')!r}; leave that tool out")
    return described


def chat_choice(choice: str | bool | Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> Any:
    """LangChain's `tool_choice` as the API has it; raises `ConfigError` for a tool that isn't among `tools`."""
    if isinstance(choice, bool):
        return "required" if choice else "none"
    if choice in ("auto", "none", "required", "any"):
        return "required" if choice == "any" else choice
    name = choice if isinstance(choice, str) else choice.get("function", choice).get("name")
    names = sorted(tool["function"]["name"] for tool in tools)
    if name not in names:
        raise ConfigError(f"tool_choice names {name!r}, which isn't among the tools; have {', '.join(names)}")
    return {"type": "function", "function": {"name": name}}


def chat_format(schema: Schema, method: Method, strict: bool | None = None) -> dict[str, Any]:
    """The API's `response_format` for a reply under `schema`; `json_mode` is any JSON object."""
    if method == "json_mode":
        return {"type": "json_object"}
    named = {"name": "reply", "schema": json_schema(schema), **({} if strict is None else {"strict": strict})}
    return {"type": "json_schema", "json_schema": named}


def json_schema(schema: Schema) -> dict[str, Any]:
    if isinstance(schema, dict) and not {"function", "parameters", "input_schema"} & schema.keys():
        return schema  # It needs no title then, which LangChain asks for.
    if isinstance(schema, type) and hasattr(schema, "model_json_schema"):
        written: dict[str, Any] = schema.model_json_schema()  # LangChain would resolve references, which may be rings.
        return written
    try:
        return convert_to_json_schema(schema)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"the schema can't be written as JSON schema: {in_one_line(error)}") from None


def structured(model: Runnable[Any, Any], parser: "ReplyParser", *, include_raw: bool) -> Runnable[Any, Any]:
    """`model` and then `parser`; with `include_raw` a dict of `raw`, `parsed` and `parsing_error`."""
    if not include_raw:
        return model | parser
    read = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    unread = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | read.with_fallbacks([unread], exception_key="parsing_error")


class UnfitReplyError(ModelError, OutputParserException):
    """Ours and LangChain's at once, in one plain line: `include_raw` and LangChain's own retries know the latter."""

    def __init__(self, why: str, text: str) -> None:
        message = f"the reply is not what was asked for: {why}"
        super().__init__(message, kind="unusable")
        self.args = (message,)  # LangChain's adds a line with an address.
        self.llm_output = text


class ReplyParser(BaseCumulativeTransformOutputParser[Any]):
    """Reads a reply that was asked for under a schema; of a streamed one it gives each state that fits.

    Raises `UnfitReplyError`. A reply that was cut off is no answer, though its beginning could be read.
    """

    kind: Any = None
    """The pydantic class of what it gives; None: a dict."""
    tool: str | None = None
    """The tool whose call holds the answer; None: the text does."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        message = result[0].message if isinstance(result[0], ChatGeneration) else None
        partial = partial and getattr(message, "chunk_position", None) != "last"
        if not partial and message is not None and message.response_metadata.get("finish_reason") == "length":
            raise UnfitReplyError(
                "it was cut off before it was whole, so ask for it with more max_tokens", result[0].text
            )
        value = self._value(result[0].text, getattr(message, "tool_calls", ()), partial)
        if value is None or self.kind is None:
            return value
        try:
            # Classes of pydantic 1 are LangChain's, too.
            return self.kind.model_validate(value) if hasattr(self.kind, "model_validate") else self.kind(**value)
        except ValueError as error:
            if partial:
                return None
            raise UnfitReplyError(_mistake(error), result[0].text) from None

    def parse(self, text: str) -> Any:
        return self.parse_result([Generation(text=text)])

    def _value(self, text: str, calls: Sequence[Any], partial: bool) -> Any:
        if self.tool is not None:
            called = [call["args"] for call in calls if call["name"] == self.tool]
            if not called and not partial:
                raise UnfitReplyError(f"it doesn't call {self.tool}", text)
            return called[0] if called else None
        try:
            return parse_partial_json(text.strip()) if partial else read_json(text)
        except UnreadableReplyError as error:
            raise UnfitReplyError(str(error), text) from None
        except ValueError:
            return None


def reply_parser(schema: Schema, tool: str | None = None) -> ReplyParser:
    return ReplyParser(kind=schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None, tool=tool)


def _chat_tool(tool: Tool, strict: bool | None) -> dict[str, Any]:
    try:
        return convert_to_openai_tool(tool, strict=strict)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"a tool can't be described to the server: {in_one_line(error)}") from None


def _mistake(error: ValueError) -> str:
    return first_mistake(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
