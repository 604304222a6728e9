"""Asking: short questions to a model, under a budget, whose replies have the form that was asked for."""

from collections.abc import Mapping
from typing import Any

from journeyman.agents.model import Model, ModelRequest
from journeyman.agents.reply import UnreadableReplyError, read_json
from journeyman.agents.trim import TokenCount
from journeyman.runtime.run.ledger import Ledger
from journeyman.traces.errors import ModelError
from journeyman.traces.messages import Message, Usage
from journeyman.training.data.writing.drafts import RefusedError

TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1, "maxLength": 1000}
YES_NO: Mapping[str, Any] = {"type": "boolean"}
OF_ONE_REQUEST = frozenset({None, 400, 413, 422})
"""HTTP statuses of a refusal that is about this request: any other one will not answer the next one either."""


class Asker:
    """A policy, and what asking it may cost."""

    def __init__(
        self, model: Model, policy: str, ledger: Ledger, *, max_tokens: int = 300, temperature: float = 0.7
    ) -> None:
        self.policy = policy
        self._model = model
        self._ledger = ledger
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._count = TokenCount()

    async def ask(self, text: str, parts: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, Any]:
        """The parts of the reply, by name, each of its schema's type.

        Raises `RefusedError` where there is no such reply, `OverBudgetError` before a call that may cost too much, and
        `ModelError` where nobody answers.
        """
        request = ModelRequest(
            policy=self.policy,
            messages=(Message(role="user", content=text),),
            json_schema={
                "type": "object",
                "properties": {name: dict(schema) for name, schema in parts.items()},
                "required": [*parts],
                "additionalProperties": False,
            },
            max_tokens=self._max_tokens,
            temperature=self._temperature,
            seed=seed,
        )
        reservation = await self._ledger.reserve_call(self.policy, self._count(request.messages), self._max_tokens)
        usage = Usage()
        try:
            reply = await self._model.complete(request)
            usage = reply.usage
        except ModelError as error:
            if error.kind == "unusable" or (error.kind == "refused" and error.status in OF_ONE_REQUEST):
                raise RefusedError("the model gave no reply", str(error)) from None
            raise
        finally:
            reservation.settle(usage)
        self._count.learn(request.messages, usage)
        if reply.finish_reason == "length":
            raise RefusedError("the model's reply was cut off", reply.content)
        return _read(reply.content, parts)


def _read(content: str, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    try:
        said = read_json(content)
    except UnreadableReplyError as error:
        raise RefusedError("the model's reply has another form", f"{error}: {content}") from None
    if not isinstance(said, dict) or not all(_fits(said.get(name), schema) for name, schema in parts.items()):
        raise RefusedError("the model's reply has another form", content)
    return {name: said[name] for name in parts}


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    match schema.get("type"):
        case "string":
            return isinstance(value, str) and bool(value.strip())
        case "boolean":
            return isinstance(value, bool)
    return value is not None
