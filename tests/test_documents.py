"""The documents hold: links exist, tables load, examples print what they show, commands parse, and many are run."""

import json
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from shutil import copy
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args, get_origin

import pytest
from pydantic import BaseModel
from typer.main import get_command
from typer.testing import CliRunner

from journeyman.agents.agent import Crew
from journeyman.agents.crew_file import load_crew
from journeyman.agents.guards.checks import CHECKS
from journeyman.agents.guards.guardrails import Guardrail
from journeyman.agents.tool_tables import BUILDERS
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.batch import read_tasks
from journeyman.runtime.cli import build
from journeyman.runtime.config import ProjectConfig
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.serving.server import ServerState, attach
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.base import parse_config, read_toml
from journeyman.traces.messages import Message
from journeyman.training.data.samples import SFTSample, write_samples
from journeyman.training.methods.recipes.known import METHODS, load_recipe
from journeyman.training.trainings.journal import journalled

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("training/*/README.md")])
FOLDERS = ("agents", "benchmarks", "runtime", "tools", "traces", "training")
APP = build()
COMMAND = get_command(APP)


class Block(NamedTuple):
    """What stands between two fences, and what the next such block shows, if nothing but it follows."""

    page: str
    line: int
    language: str
    text: str
    shown: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in _blocks(page) if block.language == language]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in re.finditer(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(str(page.relative_to(ROOT)), line, match[1], match[2], match[3])


class Line(NamedTuple):
    """A command line of a page."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page} {' '.join(self.words)}"


LINES = [
    Line(block.page, tuple(shlex.split(line, comments=True)))
    for block in blocks("sh")
    for line in block.text.splitlines()
]
INLINE = [
    Line(str(page.relative_to(ROOT)), tuple(shlex.split(text)))
    for page in PAGES
    for text in re.findall(r"`(journeyman [a-z][^`]*)`", page.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    targets = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    for target in targets:
        name, _, heading = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
    for name in re.findall(r"`((?:traces|tools|agents|runtime|training|benchmarks|examples)/[\w/.]+)`", text):
        assert (ROOT / name).exists() or "NAME" in name, name


def test_every_top_folder_has_its_page_and_the_readme_keeps_to_two_minutes() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [folder for folder in FOLDERS if f"({folder}/README.md)" not in readme] == []
    assert len(readme.split()) < 1000
    first_commands = [line.strip().split("#")[0].strip() for line in readme.splitlines() if line.startswith("    make")]
    assert first_commands == ["make demo", "make test"]


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_every_toml_block_loads_as_the_file_that_it_names(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / block.text.partition("\n")[0].removeprefix("# ")
    path.write_text(block.text)
    if path.name == "recipe.toml":
        load_recipe(path)
    elif path.name == PROJECT_FILE:
        parse_config(ProjectConfig, read_toml(path), str(block))
    else:
        assert path.name == "crew.toml", block
        with closing(sqlite3.connect(tmp_path / "orders.db")) as orders:
            orders.execute("CREATE TABLE orders (id)")
        for folder in ("papers", "notes", "my_app"):
            (tmp_path / folder).mkdir()
        (tmp_path / "papers" / "one.md").write_text("Moons of Mars.")
        (tmp_path / "my_app" / "mail.py").write_text(
            "from journeyman.runtime import tool\n@tool\ndef send(to: str, text: str) -> str: return ''\n"
        )
        monkeypatch.chdir(tmp_path)
        load_crew(path)


def keys_of_blocks() -> set[str]:
    return {key for block in blocks("toml") for key in _keys(tomllib.loads(block.text))}


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _keys(inner)


def fields(kind: Any) -> set[str]:
    """Names of all fields of a config and of the configs in it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return set(kind.model_fields) | {name for one in kind.model_fields.values() for name in fields(one.annotation)}
    # What a function of the user's takes is no key.
    inner = () if get_origin(kind) is Callable else get_args(kind)
    return {name for one in inner for name in fields(one)}


@pytest.mark.parametrize("kind", [ProjectConfig, Crew, Guardrail, *METHODS.values()], ids=lambda kind: kind.__name__)
def test_every_key_of_a_file_stands_in_a_toml_block(kind: type[BaseModel]) -> None:
    assert fields(kind) - keys_of_blocks() - {"rows"} == set()  # Permissions are their rows.


def test_every_check_every_tool_in_the_box_and_every_extra_has_its_row() -> None:
    rows = {page: (ROOT / page / "README.md").read_text() for page in FOLDERS}
    assert [name for name in CHECKS if f"\n| `{name}` |" not in rows["agents"]] == []
    assert [name for name in BUILDERS if f"| [`{name}`](" not in rows["tools"]] == []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [name for name in extras if f"`{name}`" not in rows["runtime"]] == []


@pytest.mark.parametrize("block", [one for one in blocks("python") if "Runtime.open" not in one.text], ids=str)
def test_a_python_block_prints_what_the_page_shows(block: Block) -> None:
    done = subprocess.run([sys.executable, "-c", block.text], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (block.shown, 0), done.stderr


@pytest.mark.serve
@pytest.mark.timeout(300)
@pytest.mark.parametrize("block", [one for one in blocks("python") if "Runtime.open" in one.text], ids=str)
def test_a_python_block_that_opens_a_runtime_works_on_a_real_server(
    block: Block, vllm_server: ServerState, workspace: Workspace
) -> None:
    attach(workspace, vllm_server.url, workspace.config.server)
    done = subprocess.run(
        [sys.executable, "-c", block.text], cwd=workspace.root.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok ")
    assert block.shown is None or done.stdout == block.shown


def test_the_page_of_the_runtime_shows_the_embedding_example_as_it_is() -> None:
    assert (ROOT / "examples" / "embed.py").read_text() in [block.text for block in blocks("python")]


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_every_json_block_is_a_file_of_tasks(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(block.text)
    tasks, broken = read_tasks(path)
    assert tasks and not broken


@pytest.mark.parametrize("line", [one for one in LINES if one.words[0] == "journeyman"], ids=str)
def test_every_command_line_of_a_page_parses(line: Line) -> None:
    command, context, rest = resolved(line.words[1:])
    options, arguments, _ = command.make_parser(context).parse_args(list(rest))
    assert not arguments
    for parameter in command.params:
        assert not parameter.required or options.get(parameter.name) is not None, parameter.name


@pytest.mark.parametrize("line", INLINE, ids=str)
def test_every_command_that_a_sentence_names_is_there_with_its_options(line: Line) -> None:
    command, _, rest = resolved(line.words[1:])
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert [word for word in rest if word.startswith("--") and word not in known] == []


def resolved(words: Sequence[str]) -> tuple[Any, Any, Sequence[str]]:
    """The command that `words` lead to, with its context, and the words that are left."""
    command: Any = COMMAND
    context = command.make_context("journeyman", [], resilient_parsing=True)
    while words and getattr(command, "commands", None):
        assert words[0] in command.commands, words
        command = command.commands[words[0]]
        context = command.make_context(words[0], [], parent=context, resilient_parsing=True)
        words = words[1:]
    return command, context, words


def test_what_else_a_page_tells_to_run_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {line.words[0] for line in LINES} == {"journeyman", "make", "python", "pip", "accelerate"}
    for line in LINES:
        match line.words:
            case ("make", target, *_):
                assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), line
            case ("python", script, *_):
                assert (ROOT / script).exists(), line
            case ("accelerate", "launch", *rest):
                assert rest[:3] == ["--num_processes", "2", "$(command -v journeyman)"] and rest[3] == "train"
            case ("pip", *rest):
                assert rest == ["install", f"dist/journeyman-{version}-py3-none-any.whl"]


def test_make_help_tells_of_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (listed,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in shown.splitlines()] == listed.split()


ELSEWHERE = (
    "demo", "evaluate", "gate", "teach", "mcp", "model", "run", "server", "train", "train-router",
    "adapters export", "adapters promote", "adapters register", "adapters rollback", "adapters swap",
    "runs approve RUN --resume", "runs answer", "runs resume", "mine --agent lookup --policy",
    "mine --agent lookup --kind",
    "mine --agent lookup --credit counterfactual", "mine --agent lookup --sample",
    "replay TRACE --crew crew.toml --from", "label --from-mlflow",
    "traces export --otlp", "traces receive", "traces tail", "tasks write",
)  # fmt: skip
"""Commands that need a server, train, or do not end by themselves: tests of their own run them."""
ALONE = [
    line.words[1:]
    for line in LINES
    if line.words[0] == "journeyman"
    and not f"{' '.join(line.words[1:])} ".startswith(tuple(f"{one} " for one in ELSEWHERE))
]

CREW = """
name = "office"
[workers.lookup]
tools = ["mail"]
[tools.mail]
use = "calculator"
approve = true
"""


@pytest.fixture
def recorded(workspace: Workspace) -> SimpleNamespace:
    """A workspace with a run that ended, one that waits for a person, and conversations of another program."""
    (workspace.root.parent / "crew.toml").write_text(CREW)
    rows = (f'{{"id": "q{n}", "prompt": "{sha256(b"%d" % n).hexdigest()}"}}\n' for n in range(60))
    (workspace.root.parent / "tasks.jsonl").write_text("".join(rows))
    chats = copy(ROOT / "tests" / "data" / "imports" / "requests.jsonl", workspace.root.parent / "chats.jsonl")
    imported = ["traces", "import", str(chats), "--agent", "lookup", "-C", str(workspace.root)]
    assert CliRunner().invoke(APP, imported).exit_code == 0
    recording = Recording(workspace)
    model = ScriptedModel([write_answer("42"), write_call("mail", {"expression": "6 * 7"})])
    crew = load_crew(workspace.root.parent / "crew.toml")
    runtime = Runtime(crew, model=model, tracer=recording.tracer, runs=workspace.runs)
    ended = runtime.run_sync("How much is six times seven?", run_id="ended")
    waiting = runtime.run_sync("How much is it really?", run_id="waiting")
    recording.close()
    assert (ended.status, waiting.status) == ("ok", "needs_input")
    span = workspace.store.get(ended.trace_id).turns[0].span_id
    asked = (Message(role="user", content="How much is six times seven?"),)
    whose: dict[str, Any] = {"agent": "lookup", "policy": "person", "trace_id": ended.trace_id, "span_ids": (span,)}
    write_samples([SFTSample(messages=asked, completion="42", **whose)], workspace.datasets / "lookup.jsonl")
    for policy in ("lookup@1", "lookup@2"):
        with journalled(workspace, policy, {"agent": "lookup"}, {"method": "sft"}, 0) as journal:
            journal.step(1, 1, {"loss": 0.5})
    names = dict.fromkeys(("DATASET", "OLD", "NEW"), "lookup.jsonl")
    return SimpleNamespace(TRACE=ended.trace_id, SPAN=span, RUN="waiting", folder=workspace.root.parent, **names)


def test_the_commands_of_the_pages_that_need_no_server_work(
    recorded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recorded.folder)
    assert len(ALONE) > 25
    failed = {}
    for words in ALONE:
        done = CliRunner().invoke(APP, [getattr(recorded, word, word) for word in words])
        if done.exit_code != 0 or done.exception is not None:
            failed[" ".join(words)] = done.output or repr(done.exception)
    assert failed == {}


def measured(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_the_table_of_the_demo_is_that_of_the_results() -> None:
    lines = [" ".join(line.split()) for line in (ROOT / "README.md").read_text().splitlines()]
    for row in measured("crew")["rows"]:
        figures = [f"{row['score']:.3f}", f"{row['low']:.3f} .. {row['high']:.3f}", str(row["solved"])]
        figures += [f"{row['tokens_per_task']:.0f}"]
        figures += [f"{row[key]:.1f}" for key in ("calls_per_task", "p50_s", "p90_s")]
        assert f"{row['name'].replace('_', ' ')} {' '.join(figures)}" in lines


def test_the_numbers_of_the_readme_are_those_of_the_results() -> None:
    score = {row["name"]: row["score"] for row in measured("crew")["rows"]}
    swap, kills, faults, overhead = (measured(name) for name in ("swap", "kills", "faults", "overhead"))
    minutes = sum(adapter["train_s"] for adapter in measured("crew")["adapters"]) / 60
    eight = overhead["workers"].index(8)
    shown = [
        f"one agent alone scores {score['single_agent']:.2f}, the crew {score['untrained']:.2f} before",
        f"training and {score['trained']:.2f} after it",
        {6: "six minutes of training"}[round(minutes)],
        f"{swap['first_token_ms']['median'] / 1e3:.1f} s at the median, {swap['failed']} failed look-ups",
        f"| {kills['kills']} kills with SIGKILL | {kills['lost']} lost, {kills['doubled']} doubled |",
        f"| {faults['faults']:,} faults in {faults['runs']:,} runs | {faults['untyped_outcomes']} untyped outcomes, "
        f"{faults['duplicate_side_effects']} effects done twice |",
        f"{overhead['ours_ms'][eight]:.1f} ms; raw LangGraph without a record {overhead['langgraph_ms'][eight]:.1f} ms",
        f"{overhead['peers_in_code']['agent-framework-core'][eight]:.1f} against "
        f"{overhead['ours_untraced_ms'][eight]:.1f} ms",
    ]
    pairs = next(row for row in measured("mining")["kinds"] if row["kind"] == "preference")
    shown.append(f"million spans | {pairs['seconds']:.0f} s, {pairs['peak_mb']:,.0f} MB |")
    readme = (ROOT / "README.md").read_text()
    assert [text for text in shown if text not in readme] == []


def test_the_tables_of_the_benchmarks_are_those_of_the_results() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text()
    overhead, faults = measured("overhead"), measured("faults")
    names = {
        "Agent Framework": "agent-framework-core",
        "Strands": "strands-agents",
        "OpenAI Agents SDK": "openai-agents",
        "Pydantic AI": "pydantic-ai-slim",
        "Google ADK": "google-adk",
    }
    rows = [_row("journeyman", overhead["ours_untraced_ms"], overhead["ours_ms"])]
    for title, peer in names.items():
        title = f"{title} {overhead['peer_versions'][peer].rpartition('.')[0]}"
        rows.append(_row(title, overhead["peers"][peer], overhead["peers_recorded"][peer]))
        rows.append(_row(title, overhead["peers_in_code"][peer]))
    crews = {row["name"]: row for row in (*measured("crew")["rows"], *measured("crew")["swapped"])}
    rows += [
        f"| {row['score']:.3f} ({row['low']:.3f} .. {row['high']:.3f}) | {row['solved']} of {row['tasks']} "
        f"| {row['tokens_per_task']:.0f} | {row['calls_per_task']:.1f} | {row['p50_s']:.1f} | {row['p90_s']:.1f} |"
        for row in crews.values()
    ]
    rows += [
        f"| {row['name']} | {row['named_right']:.3f} ({row['low']:.3f} .. {row['high']:.3f}) "
        f"| {row['calls_per_run']:.1f} | {row['of']['silent']:.3f} | {row['of']['loud']:.3f} "
        f"| {row['of']['habit']:.3f} | {row['of']['slip']:.3f} |"
        for row in measured("credit")["rules"]
    ]
    rows += [f"{faults['runs']:,} runs", f"{faults['faults']:,} faults of {len(faults['by_fault'])} kinds"]
    rows += [f"{faults['taken_back']} replies broke off", f"{faults['streamed']:,} were streamed"]
    demo = measured("demo_record")
    sft, kto = ([row["rows"] for row in demo["rows"] if row["kind"] == kind] for kind in ("sft", "kto"))
    rows.append(f"{sft[0]} rows of SFT for the orchestrator and {sft[1]} for the worker, and {kto[0]} and {kto[1]} of")
    oracle = demo["oracle"]
    rows.append(f"{oracle['named_right']['documented rule']:.3f} ({oracle['low']:.3f} .. {oracle['high']:.3f})")
    rows += [f"{row['gain']:+.3f}" for row in oracle["agents"].values()]
    mining = measured("mining")
    mined = {f"`{row['kind']}`": row for row in mining["kinds"]}
    mined |= {f"plain DuckDB, {row['kind']}": row for row in mining["duckdb"]}
    rows += [
        f"| {title} | {row['rows']:,} | {row['seconds']:.1f} | {row['cpu_s']:.1f} | {row['peak_mb']:,.0f} |"
        for title, row in mined.items()
    ]
    rows += [f"{mining['mlflow']['spans']:,} spans through its own API in {mining['mlflow']['seconds']:.1f} s"]
    assert [row for row in rows if row not in page] == []
    assert [path.name for path in RESULTS.glob("*.json") if "quick" not in path.name and path.name not in page] == []


def _row(title: str, *figures: Sequence[float]) -> str:
    cells = (" / ".join(f"{ms:.1f}" for ms in column) for column in zip(*figures, strict=True))
    return f"| {title} | {' | '.join(cells)} |"
