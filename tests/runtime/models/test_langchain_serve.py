"""langchain-tests' standard suite for chat models, and LangChain's agents, on a real vLLM."""

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.serving.server import ServerState

# The first test pays for the start of the session's server.
pytestmark = [pytest.mark.serve, pytest.mark.timeout(600)]


class TestStandardIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def server(self, vllm_server: ServerState) -> None:
        self.url = vllm_server.url

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatVLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": self.url, "model_kwargs": {"parallel_tool_calls": False}}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True
