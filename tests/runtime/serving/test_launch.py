"""How vLLM is started so that its own spans come to us, and when it is not."""

import sys
from pathlib import Path

import pytest

from journeyman.runtime.config import ServerConfig
from journeyman.runtime.serving.launch import MAIN, TRACED_MAIN, command, environment


def test_a_server_is_started_with_a_recording_of_its_spans(tmp_path: Path) -> None:
    line = command("model", ServerConfig(), "vllm", tmp_path)
    assert line[:4] == [sys.executable, "-c", TRACED_MAIN, str(tmp_path)]
    assert line[4:6] == ["--model", "model"]


@pytest.mark.parametrize(
    "config",
    [
        ServerConfig(traces=False),
        ServerConfig(extra_args=("--otlp-traces-endpoint", "http://elsewhere:4317")),
        ServerConfig(extra_args=("--otlp-traces-endpoint=http://elsewhere:4317",)),
        ServerConfig(extra_args=("--disable-log-stats",)),
    ],
)
def test_a_server_whose_spans_go_elsewhere_or_nowhere_is_plain_vllm(config: ServerConfig, tmp_path: Path) -> None:
    line = command("model", config, "vllm", tmp_path)
    assert line[:5] == [sys.executable, "-c", MAIN, "--model", "model"]
    given = {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}
    assert given.items() <= environment("vllm", config, given).items()


def test_what_the_environment_says_of_opentelemetry_does_not_lose_a_span() -> None:
    inherited = {
        "OTEL_SDK_DISABLED": "true",
        "OTEL_TRACES_SAMPLER": "always_off",
        "no_proxy": "corp",
        "http_proxy": "p",
    }
    env = environment("vllm", ServerConfig(), inherited)
    assert "OTEL_SDK_DISABLED" not in env and "OTEL_TRACES_SAMPLER" not in env
    assert env["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    assert env["NO_PROXY"] == env["no_proxy"] == "corp,127.0.0.1"


def test_a_parser_of_tool_calls_is_named_with_what_it_needs(tmp_path: Path) -> None:
    line = command("model", ServerConfig(tool_call_parser="hermes"), "vllm", tmp_path)
    at = line.index("--tool-call-parser")
    assert line[at - 1 : at + 2] == ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    assert "--tool-call-parser" not in command("model", ServerConfig(), "vllm", tmp_path)
