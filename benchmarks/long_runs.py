"""Claim: what a long run leaves is in proportion to what was new in it, and reading it back stays small and quick.

A coding agent of 400 turns, each with a tool's result of 4 kB: once live, with the token ids that a server gives, and
once imported from a chat log. A prompt of turn n holds the n - 1 turns before it. `append` is the time from the end of
a model call's span until it is in the log, `turn` all that a turn takes of ours, from a reply to the next request.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from _record import write_result

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.tools.tool import tool
from journeyman.traces.capture.content import ContentPolicy
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.trace import Task

SEED = 0
TURNS = 400
RESULT_CHARACTERS = 4000
TOKEN_CHARACTERS = 3.5
"""Of a text to a token, about."""
ENDS = 20
"""Turns at the beginning and at the end whose costs are compared."""
ELSEWHERE_BYTES = 64 * 2**20
"""Read in place of what a machine does while a model answers: the processor's cache is cold after it in each turn, not
only in the last ones, whose prompts are larger than the cache."""


class Texts:
    """Lines as a shell gives them: words of a small vocabulary, numbers and paths, never twice the same."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._words = [
            "".join(self._random.choices("abcdefghijklmnopqrstuvwxyz_", k=size)) for size in range(3, 12)
        ] * 40
        self.written = 0
        """Bytes of all texts so far."""

    def next(self, characters: int = RESULT_CHARACTERS) -> str:
        lines, size = [], 0
        while size < characters:
            line = f"{'/'.join(self._random.choices(self._words, k=3))}:{self._random.randrange(9999)}: "
            line += " ".join(f"{self._random.choice(self._words)}{self._random.randrange(99)}" for _ in range(6))
            lines.append(line)
            size += len(line) + 1
        text = "\n".join(lines)[:characters]
        self.written += len(text.encode())
        return text


class Coder(ScriptedModel):
    """Calls the tool in each turn; its replies have token ids, of the prompt as well, as vLLM's have."""

    def __init__(self, turns: int) -> None:
        super().__init__(self._written)
        self._turns = turns
        self._asked = 0
        self._random = random.Random(SEED)
        self._prompt: list[int] = []
        self._characters = 0
        self._elsewhere = b"." * ELSEWHERE_BYTES
        self._gave: float | None = None
        self.between: list[float] = []
        """Seconds from each reply until the next request: all that a turn takes of ours, and the tool's text."""

    def _written(self, request: ModelRequest) -> str:
        self._asked += 1
        if self._asked > self._turns:
            return write_answer("done")
        return write_call("shell", {"command": f"grep -rn step_{self._asked} src"})

    async def complete(self, request: ModelRequest) -> ModelReply:
        if self._gave is not None:
            self.between.append(perf_counter() - self._gave)
        reply = await self._told(request)
        self._elsewhere.count(b"!")
        self._gave = perf_counter()
        return reply

    async def _told(self, request: ModelRequest) -> ModelReply:
        reply = await super().complete(request)
        grown = sum(len(message.content) for message in request.messages) - self._characters
        self._characters += grown
        self._prompt += [self._random.randrange(49_000) for _ in range(int(grown / TOKEN_CHARACTERS))]
        said = [self._random.randrange(49_000) for _ in range(int(len(reply.content) / TOKEN_CHARACTERS))]
        logprobs = tuple(-self._random.expovariate(3) for _ in said)
        return reply.model_copy(
            update={"prompt_token_ids": (*self._prompt,), "token_ids": (*said,), "logprobs": logprobs}
        )


class TimedPolicy(ContentPolicy):
    """Keeps the seconds that each model call's span took, from its end until it is in the log."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def apply(self, span: SpanRecord) -> SpanRecord:
        began = perf_counter()
        kept = super().apply(span)
        if span.name.startswith("chat"):
            self.seconds.append(perf_counter() - began)
        return kept


class TimedLog(SpanLog):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seconds: list[float] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        began = perf_counter()
        super().append(span, sync=sync)
        if span.name.startswith("chat"):
            self.seconds.append(perf_counter() - began)


def live(workspace: Workspace) -> dict[str, Any]:
    """A run in the workspace: bytes that were new in it, and the seconds of its first and its last appends."""
    texts = Texts(SEED)

    @tool
    def shell(command: str) -> str:
        """Runs a command."""
        return texts.next()

    coder = Agent(name="coder", instructions="You mend programs.", tools=("shell",), limits=Limits(turns=TURNS + 1))
    crew = Crew(name="coding", orchestrator=None, workers=(coder,), tools={"shell": shell})
    log, policy, model = TimedLog(workspace.create().spans), TimedPolicy(), Coder(TURNS)

    async def work() -> None:
        async with Runtime(crew, model=model, tracer=Tracer(log, content=policy)) as runtime:
            outcome = await runtime.run(Task(id="fix", prompt="fix it"))
            assert outcome.status == "ok" and outcome.tool_calls == TURNS

    asyncio.run(work())
    log.close()
    appends = [looked + written for looked, written in zip(policy.seconds, log.seconds, strict=True)]
    return {
        "new_bytes": texts.written,
        **{f"append_{end}_ms": seconds * 1e3 for end, seconds in ends(appends).items()},
        **{f"turn_{end}_ms": seconds * 1e3 for end, seconds in ends(model.between).items()},
    }


def ends(seconds: list[float]) -> dict[str, float]:
    return {"first": median(seconds[1 : ENDS + 1]), "last": median(seconds[-ENDS:])}


def imported(workspace: Workspace, folder: Path) -> dict[str, Any]:
    """The same as a chat log that is imported."""
    texts = Texts(SEED + 1)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "fix it"}]
    for turn in range(TURNS):
        function = {"name": "shell", "arguments": json.dumps({"command": f"grep -rn step_{turn} src"})}
        call = {"id": f"c{turn}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": f"step {turn}", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{turn}", "content": texts.next()})
    messages.append({"role": "assistant", "content": "done"})
    log = folder / "chat.jsonl"
    log.write_text(json.dumps({"messages": messages}) + "\n")
    seconds, peak = command(workspace, "traces", "import", str(log), "--agent", "coder")
    return {"new_bytes": texts.written, "import_s": seconds, "import_peak_mb": peak}


def command(workspace: Workspace, *words: str) -> tuple[float, float]:
    """Seconds of a command of ours, its start included, and its largest resident memory in MB."""
    began = perf_counter()
    program = [str(Path(sys.executable).with_name("journeyman")), *words, "-C", str(workspace.root)]
    # Modules are compiled once, as on a user's machine.
    known = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, cwd=workspace.root, env=known)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return perf_counter() - began, used.ru_maxrss / 1000


def size_of(workspace: Workspace) -> int:
    return sum(path.stat().st_size for path in workspace.spans.rglob("*") if path.is_file())


def measured(workspace: Workspace, made: dict[str, Any], rows: Path) -> dict[str, Any]:
    """What the record takes as a log and as a segment, and what it takes to read it."""
    in_log = size_of(workspace)
    started, _ = command(workspace, "traces", "list")
    seconds = {}
    for kind in ("log", "segment"):
        if kind == "segment":
            command(workspace, "traces", "compact")
        (trace_id,) = workspace.store.ids()
        seconds[f"tree_{kind}_s"], _ = command(workspace, "traces", "show", trace_id)
        seconds[f"report_{kind}_s"], _ = command(workspace, "traces", "report")
        out = rows / f"{kind}.jsonl"
        seconds[f"mine_{kind}_s"], seconds[f"mine_{kind}_mb"] = command(
            workspace, "mine", "--agent", "coder", "--out", str(out)
        )
    return made | {
        "log_ratio": in_log / made["new_bytes"],
        "segment_ratio": size_of(workspace) / made["new_bytes"],
        "list_s": started,
        **seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 turns; its figures mean nothing")
    quick = parser.parse_args().quick
    global TURNS
    TURNS = 40 if quick else TURNS
    kinds = {}
    for name in ("live", "imported"):
        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace(Path(folder) / "workspace")
            made = live(workspace) if name == "live" else imported(workspace.create(), Path(folder))
            kinds[name] = measured(workspace, made, Path(folder))
            print(name, *(f"{key} {value:,.2f}" for key, value in kinds[name].items()), sep="\n  ")
    values = {
        "turns": TURNS,
        "bytes_ratio": max(one[f"{kind}_ratio"] for one in kinds.values() for kind in ("log", "segment")),
        "append_last_over_first": kinds["live"]["append_last_ms"] / kinds["live"]["append_first_ms"],
        "mine_peak_mb": max(one[f"mine_{kind}_mb"] for one in kinds.values() for kind in ("log", "segment")),
        "tree_s": max(
            one[f"{what}_{kind}_s"]
            for one in kinds.values()
            for what in ("tree", "report")
            for kind in ("log", "segment")
        ),
    }
    print(values)
    write_result("long_runs", values | {"kinds": kinds}, seed=SEED, quick=quick)


if __name__ == "__main__":
    main()
