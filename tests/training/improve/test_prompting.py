"""The search for a prompt, by GEPA, on a crew that a server of the test's own answers: base knows half of it all."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from journeyman.agents.crew_file import load_crew
from journeyman.runtime.adapters.adapter import load_adapter, read_prompt
from journeyman.runtime.adapters.lineage import AdapterLineage, trace_lineage
from journeyman.runtime.adapters.live import current_policies, promote
from journeyman.runtime.serving.backend import open_backend
from journeyman.runtime.serving.server import attach
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, JourneymanError, ServerError, TrainingError
from journeyman.traces.trace import Task
from journeyman.training.improve.prompt_job import Prompted
from journeyman.training.improve.prompt_search import Reflections
from journeyman.training.improve.prompting import Prompting
from journeyman.training.improve.worked import examples_of, find_worked
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.methods.recipes.prompt import PromptRecipe

MakeAdapter = Callable[..., Path]
MakePrompt = Callable[..., Path]
TASKS = [Task(id=f"q{number}", prompt=str(number), reference=f"word{number}") for number in range(20)]
KEY = "Think of a word."


class Looked:
    """The search as one test wants it."""

    def __init__(self, workspace: Workspace, crew: Path, url: str) -> None:
        self.workspace = workspace
        self._crew = crew
        attach(workspace, url)

    def prompting(self, tasks: list[Task] = TASKS, **settings: Any) -> Prompting:
        start, scorer = settings.pop("start", None), settings.pop("scorer", None)
        agent = settings.pop("agent", "worker")
        values = {"metric_calls": 120, **settings}
        recipe = load_recipe("prompt", {f"prompt.{key}": value for key, value in values.items()})
        assert isinstance(recipe, PromptRecipe)
        return Prompting(
            self.workspace,
            load_crew(self._crew),
            agent,
            tasks,
            recipe,
            conditions=[self._crew.read_text()],
            base_digest="b" * 64,
            backend=lambda: open_backend(self.workspace),
            start=start,
            source="train.jsonl",
            **({} if scorer is None else {"scorer": scorer}),
        )

    def record(self, **settings: Any) -> None:
        """The crew's own runs of what is learned from, as it is in service."""
        prompting = self.prompting(**settings)
        prompting.bench(prompting.learn).episodes(current_policies(self.workspace))

    def find(self, **settings: Any) -> Prompted:
        return self.prompting(**settings).optimise()


@pytest.fixture
def look(workspace: Workspace, files: list[str], url: str) -> Looked:
    return Looked(workspace, Path(files[1]), url)


def test_examples_are_chosen_from_the_record_by_what_they_bring(look: Looked, peer: Any) -> None:
    look.record()
    found = look.find()
    assert found.adapter is not None and found.search.score == 1.0
    assert found.search.first_score < 1 and found.search.metric_calls <= 120
    folder = look.workspace.adapters / "worker@1"
    prompt = read_prompt(folder)
    assert load_adapter(folder) == found.adapter and found.adapter.method == "prompt"
    assert prompt.instructions == "Answer." and 1 <= len(prompt.examples) <= 3
    select = {task.prompt for task in look.prompting().select}
    assert not select & {example.user for example in prompt.examples}
    assert set(peer.chats) == {"base"}


def test_the_number_of_an_unfinished_training_is_left_to_it(look: Looked) -> None:
    partial = look.workspace.adapters / ".worker@1.partial"
    partial.mkdir(parents=True)
    (partial / "rounds.jsonl").write_text("{}\n")
    found = look.find(reflect="base", examples=0)
    assert found.adapter is not None and found.adapter.policy == "worker@2"
    assert load_adapter(look.workspace.adapters / "worker@2") == found.adapter


def test_its_examples_are_found_by_lineage(look: Looked) -> None:
    look.record()
    found = look.find()
    assert found.adapter is not None
    lineage = trace_lineage(look.workspace, "worker@1")
    assert isinstance(lineage, AdapterLineage)
    assert len(lineage.sources) == found.offered == found.adapter.rows
    assert {source.state for source in lineage.sources} == {"recorded"}


def test_a_model_writes_instructions_from_the_runs(look: Looked, peer: Any) -> None:
    found = look.find(reflect="base", examples=0)
    assert found.adapter is not None and found.search.score == 1.0
    assert read_prompt(look.workspace.adapters / "worker@1").instructions == KEY


def test_what_it_tries_is_recorded_under_names_of_its_own_and_may_be_learned_from(look: Looked) -> None:
    look.find(reflect="base", examples=0)
    rows = look.workspace.store.sql("SELECT DISTINCT policy, served_by FROM turns ORDER BY policy").to_pylist()
    assert [row["policy"] for row in rows] == ["worker@1.1", "worker@1.2"]
    assert {row["served_by"] for row in rows} == {"base"}
    purposes = look.workspace.store.sql("SELECT DISTINCT purpose FROM traces").to_pylist()
    assert purposes == [{"purpose": "rollout"}]


def test_the_same_search_again_gives_the_same_candidate_and_asks_nobody(look: Looked, peer: Any) -> None:
    first = look.find(reflect="base", examples=0)
    asked = len(peer.chats)
    again = look.find(reflect="base", examples=0)
    assert again.adapter == first.adapter and again.search == first.search
    assert len(peer.chats) == asked


def test_a_search_that_was_killed_goes_on_where_it_was(
    look: Looked, peer: Any, tmp_path: Path, files: list[str], url: str
) -> None:
    whole = Looked(Workspace(tmp_path / "other").create(), Path(files[1]), url).find(reflect="base", examples=0)
    asked = len(peer.chats)
    peer.chats.clear()
    settings = {"prompt.metric_calls": 120, "prompt.reflect": "base", "prompt.examples": 0}
    tasks = json.dumps([task.model_dump() for task in TASKS])
    program = Path(__file__).with_name("killed_search.py")
    arguments = [str(look.workspace.root), files[1], tasks, json.dumps(settings)]
    with subprocess.Popen([sys.executable, str(program), *arguments]) as process:
        while len(peer.chats) < 12 and process.poll() is None:
            sleep(0.01)
        process.kill()
    assert not (look.workspace.adapters / "worker@1").exists()
    found = look.find(reflect="base", examples=0)
    assert found.search == whole.search
    # Those that were on their way when it was killed are made again.
    assert asked <= len(peer.chats) <= asked + 9


def test_a_search_that_was_stopped_while_instructions_were_written_has_none_written_twice(
    look: Looked, tmp_path: Path
) -> None:
    asked: list[int] = []

    def write(messages: Any, number: int) -> str:
        asked.append(number)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return f"text {number}"

    path = tmp_path / "reflections.jsonl"
    first = Reflections(path, write)
    assert first("one") == "text 0"
    with pytest.raises(KeyboardInterrupt):
        first("two")
    again = Reflections(path, write)
    assert [again("one"), again("two")] == ["text 0", "text 1"] and asked == [0, 1, 1]


def test_a_prompt_in_service_is_where_the_next_search_begins(look: Looked, make_prompt: MakePrompt) -> None:
    make_prompt("worker@1", "Say it.")
    promote(look.workspace, "worker@1", server=None, reason="test")
    prompting = look.prompting(reflect="base", examples=0)
    assert prompting.first.instructions == "Say it."
    found = prompting.optimise()
    assert found.adapter is not None
    assert (found.adapter.policy, found.adapter.parent, found.adapter.start) == ("worker@2", "worker@1", "base")


def test_it_stands_on_the_adapter_in_service(look: Looked, make_adapter: MakeAdapter, peer: Any) -> None:
    make_adapter("worker@2")
    prompting = look.prompting(reflect="base", examples=0, start="worker@2")
    found = prompting.optimise()
    assert prompting.first.weights == "worker@2"
    assert found.adapter is None and found.search.score == 0.0
    assert set(peer.chats) == {"worker@2", "base"}
    assert not (look.workspace.adapters / "worker@3").exists()


def test_no_task_that_is_held_out_is_learned_from(look: Looked) -> None:
    root = look.workspace.root.parent
    held = TASKS[:8]
    (root / "gate.jsonl").write_text("".join(task.model_dump_json() + "\n" for task in held))
    (root / "journeyman.toml").write_text('tasks.gate = "gate.jsonl"\n')
    prompting = look.prompting()
    assert not {task.id for task in prompting.tasks} & {task.id for task in held}
    assert prompting.passed_over == {"a task of gate": 8}


def test_work_of_measured_and_bad_runs_is_not_shown(look: Looked) -> None:
    prompting = look.prompting()
    look.record()
    shelf = find_worked(look.workspace, prompting.crew, prompting.crew.workers[0], TASKS, prompting.first, 1.0)
    users = [example.user for row in shelf.rows for example in examples_of(row)]
    assert users and all(int(user) % 2 == 0 for user in users)
    assert shelf.refused == {"score below 1, or none": sum(int(task.prompt) % 2 for task in prompting.learn)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"metric_calls": 10}, "prompt.metric_calls is 10: one new prompt on 8 tasks takes 24 runs; raise it"),
        ({"examples": 0}, "nobody reflects, so no prompt can change"),
        ({"reflect": "nobody"}, "unknown policy 'nobody'; have base"),
        ({"tasks": TASKS[:1]}, "train.jsonl: 1 tasks can't be split"),
        ({"tasks": [Task(id="q", prompt="1"), *TASKS]}, "1 tasks have no `reference` to score by, the first is 'q'"),
        ({"agent": "clerk"}, "crew 'echo' has no agent 'clerk'; it has: worker"),
        ({"start": "clerk@1"}, "isn't an adapter of worker"),
    ],
)
def test_bad_input_is_told_in_one_line(
    look: Looked, make_adapter: MakeAdapter, settings: dict[str, Any], words: str
) -> None:
    make_adapter("clerk@1")
    with pytest.raises(ConfigError) as error:
        look.prompting(**settings)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_without_work_to_show_and_without_a_model_there_is_nothing_to_change(look: Looked) -> None:
    with pytest.raises(TrainingError, match="no work of worker in a good run of these tasks is recorded; run `journey"):
        look.find()


def test_a_table_that_means_nothing_here_is_refused() -> None:
    with pytest.raises(ConfigError, match="lora: a prompt candidate trains no weights"):
        load_recipe("prompt", {"lora.r": 8})


def test_a_server_that_fails_ends_the_search_and_what_was_scored_stays(look: Looked, peer: Any) -> None:
    peer.ailing = True
    with pytest.raises((ServerError, JourneymanError)):
        look.find(reflect="base", examples=0)
    peer.ailing = False
    assert look.find(reflect="base", examples=0).adapter is not None


def test_the_search_is_kept_beside_the_candidate(look: Looked) -> None:
    look.find(reflect="base", examples=0)
    search = json.loads((look.workspace.adapters / "worker@1" / "search.json").read_text())
    assert search["tasks"] == 8 and search["tried"] >= 2
    assert search["job"]["scorer"] == "journeyman.training.rewards:answer_in_text"
