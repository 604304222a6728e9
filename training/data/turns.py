"""Turns as the store has them, a column a field: millions are looked at, so nothing is read that isn't needed."""

import json
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from journeyman.traces.assemble import trajectory_refusal
from journeyman.traces.messages import (
    Message,
    NotForTrainingError,
    learnable_instructions,
    learnable_messages,
    reply_attribute,
)

FUNCTION = ("name", "description", "parameters")
"""What of a function's definition a server is sent."""


class MinedTurn(NamedTuple):
    """Columns of the view `turns`."""

    trace_id: str
    span_id: str
    agent: str
    policy: str | None
    trajectory_status: str | None
    refusal: str | None
    demonstration: bool
    prompt_form: str | None
    system_digest: str | None
    system_instructions: str | None
    tools_digest: str | None
    tool_definitions: str | None
    output_type: str | None
    run_id: str | None
    input_messages: str | None
    output_messages: str | None
    prompt_token_ids_json: str | None
    token_ids_json: str | None

    @property
    def ids(self) -> tuple[str, str] | None:
        """None for a demonstration, which is text alone."""
        if self.demonstration or not self.prompt_token_ids_json or not self.token_ids_json:
            return None
        return self.prompt_token_ids_json, self.token_ids_json

    @property
    def unfit(self) -> str | None:
        """Why its reply can't be imitated, in words fit for counting."""
        if self.trajectory_status not in ("ok", None):
            return f"trajectory {self.trajectory_status}"
        return self.refusal or trajectory_refusal(self.agent, self.trajectory_status)

    @property
    def asked(self) -> tuple[str | None, ...]:
        """What tells a prompt from another one."""
        system, tools = self.system_digest or self.system_instructions, self.tools_digest or self.tool_definitions
        return system, tools, self.input_messages

    def by(self, policy: str, text: str) -> "MinedTurn":
        """The same turn as a demonstration in which somebody said that."""
        said = reply_attribute(Message(role="assistant", content=text))
        return self._replace(policy=policy, demonstration=True, output_messages=said)

    def prompt(self, system: str | None) -> tuple[dict[str, Any], ...]:
        """Its messages; raises `NotForTrainingError`, or `ValueError` where they can't be read."""
        return (*_instructions(system), *learnable_messages(self.input_messages))

    def reply(self) -> dict[str, Any] | None:
        """`role`, `content` and `tool_calls`; raises like `prompt`."""
        return next(learnable_messages(self.output_messages), None)

    def sent(self, definitions: str | None) -> list[dict[str, Any]] | None:
        """The tools that the server was given, None where it was given none.

        An agent of ours that writes its calls as JSON has tools, but its server is not told of them: it decodes a
        schema.
        """
        if definitions is None or (self.run_id is not None and self.output_type == "json"):
            return None
        return read_definitions(definitions) or None


_instructions = lru_cache(maxsize=64)(learnable_instructions)


@lru_cache(maxsize=64)
def read_definitions(text: str) -> list[dict[str, Any]]:
    """Of functions, as the conventions write them down, or with their fields in a table of their own."""
    tools = json.loads(text)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise NotForTrainingError("tool definitions that aren't a list of objects")
    found = [tool["function"] if isinstance(tool.get("function"), dict) else tool for tool in tools]
    if not all(isinstance(tool.get("name"), str) for tool in found):
        raise NotForTrainingError("a tool definition without a name")
    if not all(tool.get("type", "function") == "function" for tool in tools):
        raise NotForTrainingError("a tool that isn't a function")
    return [{key: tool[key] for key in FUNCTION if tool.get(key) is not None} for tool in found]


def digest_texts(texts: Iterable[str | None]) -> bytes:
    """Tells texts from others, in their order; sixteen bytes."""
    return sha256("\0".join(text or "" for text in texts).encode()).digest()[:16]
