"""Models elsewhere: each `[models.NAME]` of the project is an endpoint that answers for the policy NAME."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from journeyman.agents.model import Model, ModelReply, ModelRequest, ModelTable
from journeyman.traces.base import Config
from journeyman.traces.errors import ConfigError

if TYPE_CHECKING:
    from journeyman.runtime.models.vllm import ChatVLLM


class ModelConfig(Config):
    """Table `[models.NAME]`: a server that speaks the chat API, for the policy NAME.

    It is another model than the one that adapters are trained on, so it is not asked for token ids. Nothing is mined
    from its turns, unless it is declared a teacher.
    """

    url: str
    """E.g. `https://models.example/v1`; one without a version gets `/v1`."""
    model: str
    """Its name on that server."""
    provider: str = "openai"
    """`gen_ai.provider.name` in the record."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key: secrets stay out of files."""
    retries: int = Field(default=3, ge=0)
    """Attempts after the first one."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds for one attempt, if the agent allows as much."""
    teacher: bool = False
    """Its replies are demonstrations: agents learn from them, as text. The terms of some providers forbid that."""
    terms: str | None = None
    """What its provider's terms say of training on its replies. It is recorded with each of them."""


class AgentConfig(Config):
    """Table `[agents.NAME]`: which policies answer the agent NAME, in any crew."""

    policy: str | None = None
    """`base`, an adapter such as `worker@8`, or one of `[models]`; None for what was promoted."""
    fallback: tuple[str, ...] = ()
    """Policies that are asked in turn where that one fails; those that come before another share the agent's time."""


class Endpoint:
    """A `Model` on another server, under the name that it has there."""

    def __init__(self, config: ModelConfig, chat: "ChatVLLM") -> None:
        self._config = config
        self._chat = chat

    @property
    def provider(self) -> str:
        return self._config.provider

    @property
    def demonstrates(self) -> bool:
        return self._config.teacher

    async def complete(self, request: ModelRequest) -> ModelReply:
        return await self._chat.complete(self._there(request))

    async def stream_reply(
        self, request: ModelRequest, on_text: Callable[[str], None], on_restart: Callable[[], None]
    ) -> ModelReply:
        return await self._chat.stream_reply(self._there(request), on_text, on_restart)

    async def aclose(self) -> None:
        await self._chat.aclose()

    def _there(self, request: ModelRequest) -> ModelRequest:
        timeout_s = min(request.timeout_s, self._config.timeout_s)
        return request.model_copy(update={"policy": self._config.model, "timeout_s": timeout_s})


def model_table(
    default: Model, models: Mapping[str, ModelConfig], environment: Mapping[str, str] = os.environ
) -> ModelTable:
    """`default` for the base model and its adapters, and a row for each of `models`; raises `ConfigError`."""
    endpoints = {name: _endpoint(name, config, environment) for name, config in models.items()}
    return ModelTable(default, endpoints, {name: one.terms for name, one in models.items() if one.terms})


def _endpoint(name: str, config: ModelConfig, environment: Mapping[str, str]) -> Endpoint:
    from pydantic import SecretStr

    from journeyman.runtime.models.vllm import ChatVLLM

    key = None if config.api_key_env is None else environment.get(config.api_key_env)
    if config.api_key_env is not None and not key:
        raise ConfigError(
            f"models.{name}: export the key in {config.api_key_env}; that environment variable is not set"
        )
    try:
        chat = ChatVLLM(
            base_url=config.url,
            model=config.model,
            api_key=None if key is None else SecretStr(key),
            retries=config.retries,
            extensions=False,
        )
    except ConfigError as error:
        raise ConfigError(f"models.{name}: {error}") from None
    return Endpoint(config, chat)
