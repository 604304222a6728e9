"""`journeyman teach`, then `mine`: who may teach, what is learned from, and what is never paid for twice."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.console import Exit
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import ConfigError, ServerError, TrainingError
from journeyman.traces.messages import Usage
from journeyman.training.data.samples import SFTSample, read_samples

TASKS = 6
CREW = """
name = "moons"

[workers.clerk]
instructions = "Count."
tools = ["sum"]

[tools.sum]
use = "calculator"
"""
TERMS = "no training for rivals"
Replies = Callable[[str, int], str | int]
"""What the server says to a question the n-th time, or with which status it refuses."""


class Teacher:
    """An OpenAI server; tests say what it answers."""

    def __init__(self) -> None:
        self.url = ""
        self.replies: Replies = lambda question, time: write_answer(str(2 * int(question)))
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def reply(self, body: dict[str, Any]) -> str | int:
        question = next(one["content"] for one in body["messages"] if one["role"] == "user")
        with self._lock:
            self.bodies.append(body)
            self.asked[question] += 1
            return self.replies(question, self.asked[question])


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    there = Teacher()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = there.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if isinstance(said, int):
                self.send_error(said)
                return
            choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 90, "completion_tokens": 10}
            text = json.dumps({"id": "1", "model": "org/large-2026", "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    there.url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
    yield there
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def project(workspace: Workspace, teacher: Teacher) -> Callable[..., None]:
    """Writes a journeyman.toml with the endpoint `big`, a teacher."""

    def write(more: str = "", *, url: str = "", teaches: str = f'teacher = true\nterms = "{TERMS}"') -> None:
        (workspace.root.parent / PROJECT_FILE).write_text(
            f'{more}\n[models.big]\nurl = "{url or teacher.url}"\nmodel = "org/large"\nretries = 0\n{teaches}\n'
        )

    write()
    return write


@pytest.fixture
def lesson(tmp_path: Path, project: Callable[..., None]) -> tuple[str, ...]:
    """Options that name a crew and its tasks: twice a number; half of them tell how a person reckons."""
    (tmp_path / "moons.toml").write_text(CREW)
    return ("--crew", str(tmp_path / "moons.toml"), "--tasks", str(written(tmp_path / "lesson.jsonl")))


def written(path: Path, demonstrated: int = 0) -> Path:
    rows = []
    for number in range(1, TASKS + 1):
        row: dict[str, Any] = {"id": f"q{number}", "prompt": str(number), "reference": 2 * number}
        if number <= demonstrated:
            call = {"sum": {"expression": f"2 * {number}"}}
            row["demonstration"] = {"calls": [call], "answer": str(2 * number)}
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Doubling:
    """A model in Python: it is told who asks, and for which task."""

    provider = "tests"
    demonstrates = False
    asked: list[tuple[str | None, str | None, str | None]] = []  # noqa: RUF012

    async def complete(self, request: ModelRequest) -> ModelReply:
        assert request.assignment is not None
        self.asked.append((request.task_id, request.agent, request.assignment.id))
        number = int(request.assignment.goal)
        spoken = request.messages[-1].content
        said = write_call("sum", {"expression": f"{number} + {number}"})
        if spoken.startswith("sum: "):
            said = write_answer(spoken.removeprefix("sum: "))
        return ModelReply(id="1", model=request.policy, content=said, finish_reason="stop", usage=Usage())

    async def aclose(self) -> None: ...


def lost(task: Any, answer: str) -> Any:
    raise ValueError("no gold")


def broken() -> Any:
    raise RuntimeError("no weights")


HERE = f"{__name__}:Doubling"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    """How a command line names the model of this file, which pytest imports by its path."""
    import sys

    monkeypatch.setitem(sys.modules, "lesson_models", sys.modules[__name__])
    return "lesson_models"


def test_people_s_work_alone_teaches_without_any_model_or_server(
    run: Any, lesson: tuple[str, ...], tmp_path: Path, teacher: Teacher, project: Callable[..., None]
) -> None:
    written(tmp_path / "lesson.jsonl", demonstrated=4)
    project("[traces.prices]\ndefault = { input = 1000.0, output = 1000.0 }\n")
    result = run("teach", *lesson, "--budget", "cost=0.01")
    assert result.exit_code == Exit.OK, result.output
    assert "4 of 4 tasks have an accepted run" in result.stdout and "no demonstration  2" in result.stdout
    assert "clerk by demonstrations" in result.stderr and "4 runs to make, about " in result.stderr
    assert "tokens and 0 USD now" in result.stdout
    mined = run.json("mine", "--agent", "clerk", "--purpose", "teach")
    rows = read_samples(Path(mined["path"]), SFTSample)
    assert (mined["rows"], mined["refused"], {row.policy for row in rows}) == (8, {}, {"teacher"})
    assert rows[0].completion == '{"sum": {"expression": "2 * 1"}}' and rows[0].token_ids is None
    assert teacher.bodies == []


def test_an_endpoint_that_is_declared_a_teacher_gives_demonstrations_with_its_terms(
    run: Any, lesson: tuple[str, ...], project: Callable[..., None], workspace: Workspace
) -> None:
    result = run("teach", *lesson, "--teacher", "big")
    assert result.exit_code == Exit.OK, result.output
    assert f"models.big: its terms: {TERMS}" in result.stderr
    project(teaches="")  # The record keeps what was so.
    rows = read_samples(Path(run.json("mine", "--agent", "clerk")["path"]), SFTSample)
    assert (len(rows), {row.policy for row in rows}, {row.token_ids for row in rows}) == (TASKS, {"big"}, {None})
    told = workspace.store.sql(
        """SELECT DISTINCT policy, attributes ->> '$."journeyman.terms"' AS terms FROM spans WHERE operation = 'chat'"""
    )
    assert told.to_pylist() == [{"policy": "big", "terms": TERMS}]
    assert {trace.origin.purpose for trace in workspace.store.traces() if trace.origin} == {"teach"}


def test_what_an_endpoint_said_that_is_no_teacher_is_refused_as_before(
    run: Any, lesson: tuple[str, ...], project: Callable[..., None]
) -> None:
    project('[agents.clerk]\npolicy = "big"\n', teaches="")
    crew, tasks = lesson[1], lesson[3]
    assert run("run", "--crew", crew, "--tasks", tasks, "--out", f"{tasks}.out").exit_code == Exit.OK
    assert "another model's reply (6)" in str(run.error("mine", "--agent", "clerk"))


def test_a_model_in_python_teaches_and_is_told_who_asks(run: Any, lesson: tuple[str, ...], here: str) -> None:
    Doubling.asked.clear()
    told = run.json("teach", *lesson, "--teacher", f"clerk={here}:Doubling")
    assert (len(told["accepted"]), told["made"], told["cost"]) == (TASKS, TASKS, 0)
    assert ("q3", "clerk", "1") in Doubling.asked
    mined = run.json("mine", "--agent", "clerk", "--policy", f"{here}:Doubling")
    assert mined["rows"] == 2 * TASKS


def test_only_runs_that_are_good_enough_are_learned_from(run: Any, lesson: tuple[str, ...], teacher: Teacher) -> None:
    teacher.replies = lambda question, _: write_answer("8" if int(question) < 5 else "none")
    result = run("teach", *lesson, "--teacher", "big", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, list(told["accepted"]), told["refused"]) == (Exit.PARTIAL, ["q4"], {"score below 1": 5})
    mined = run.json("mine", "--agent", "clerk")
    assert (mined["rows"], mined["refused"]) == (1, {"not accepted by teach: score below 1": 5})
    again = run.json("teach", *lesson, "--teacher", "big", "--min-score", "0")
    assert (again["made"], len(again["accepted"])) == (0, TASKS)
    assert run.json("mine", "--agent", "clerk")["rows"] == TASKS


def test_a_verifier_may_refuse_what_the_scorer_lets_pass(run: Any, lesson: tuple[str, ...], teacher: Teacher) -> None:
    teacher.replies = lambda question, _: write_answer(f"it is {2 * int(question)}")
    assert len(run.json("teach", *lesson, "--teacher", "big")["accepted"]) == TASKS
    strict = run("teach", *lesson, "--teacher", "big", "--verify", "number")
    assert strict.exit_code == Exit.FAILED
    assert "the answer was refused: 'it is 2' is not a number" in strict.stderr


def test_of_several_runs_the_best_is_accepted_and_the_shortest_of_equal_ones(
    run: Any, lesson: tuple[str, ...], teacher: Teacher, workspace: Workspace
) -> None:
    tries = {1: write_answer("none"), 2: write_call("sum", {"expression": "2 * 2"})}
    teacher.replies = lambda question, time: tries.get(time, write_answer(str(2 * int(question))))
    options = ("teach", *lesson, "--teacher", "big", "--best-of", "3", "--concurrency", "1")
    told = run.json(*options)
    assert (len(told["accepted"]), told["runs"]) == (TASKS, 3 * TASKS)
    assert told["refused"] == {"score below 1": TASKS, "another run of the task was better": TASKS}
    assert {body["temperature"] for body in teacher.bodies} == {1.0}
    chosen = [workspace.store.get(trace_id) for trace_id in told["accepted"].values()]
    assert {len(trace.turns) for trace in chosen} == {1}
    mined = run.json("mine", "--agent", "clerk")
    assert mined["rows"] == TASKS
    assert mined["refused"]["not accepted by teach: another run of the task was better"] == 2 * TASKS
    assert run.json(*options)["made"] == 0


def test_a_teacher_that_is_down_loses_nothing_and_the_same_call_goes_on(
    run: Any, lesson: tuple[str, ...], teacher: Teacher
) -> None:
    good = teacher.replies
    teacher.replies = lambda question, time: 503 if int(question) > 3 else good(question, time)
    options = ("teach", *lesson, "--teacher", "big", "--concurrency", "1")
    down = run.error(*options)
    assert isinstance(down, ServerError) and "task 'q4' says nothing" in str(down) and "\n" not in str(down)
    teacher.replies = good
    told = run.json(*options)
    assert (told["made"], len(told["accepted"]), teacher.asked["1"], teacher.asked["4"]) == (3, TASKS, 1, 2)


def test_what_was_made_before_a_teacher_went_down_is_judged(
    run: Any, lesson: tuple[str, ...], teacher: Teacher
) -> None:
    plan = write_call("sum", {"expression": "1 + 1"})
    # The last question's first turn went well; the run itself says nothing of the teacher, and nobody learns from it.
    teacher.replies = lambda question, time: write_answer("2") if question < "6" else plan if time == 1 else 503
    run.error("teach", *lesson, "--teacher", "big", "--concurrency", "1")
    mined = run.json("mine", "--agent", "clerk")
    assert (mined["rows"], mined["refused"]["not accepted by teach: score below 1"]) == (1, 4)
    assert mined["refused"]["not accepted by teach: not judged yet"] == 2


def test_what_a_kill_leaves_is_learned_from_by_nobody_until_the_next_call_judged_it(
    run: Any, lesson: tuple[str, ...], workspace: Workspace
) -> None:
    options = ("teach", *lesson, "--teacher", "big")
    run.json(*options)
    judged = workspace.labels.read_text()
    workspace.labels.write_text("".join(line for line in judged.splitlines(True) if '"accepted"' not in line))
    assert "not accepted by teach: not judged yet (6)" in str(run.error("mine", "--agent", "clerk"))
    assert run.json(*options)["made"] == 0
    assert run.json("mine", "--agent", "clerk")["rows"] == TASKS


def test_a_teacher_that_answers_nonsense_teaches_nothing_and_says_so(
    run: Any, lesson: tuple[str, ...], teacher: Teacher
) -> None:
    teacher.replies = lambda question, _: "<html>"
    result = run("teach", *lesson, "--teacher", "big")
    assert result.exit_code == Exit.FAILED
    assert "0 of 6 tasks have an accepted run" in result.stdout and "run failed" in result.stdout
    assert "the first run that did not end well: q1 failed: " in result.stderr


def test_a_budget_ends_it_with_what_there_is_and_more_of_it_goes_on(
    run: Any, lesson: tuple[str, ...], project: Callable[..., None], teacher: Teacher
) -> None:
    options = ("teach", *lesson, "--teacher", "big", "--concurrency", "1")
    unpriced = run.error(*options, "--budget", "cost=1")
    assert "a budget of money can't hold 'big', which has no price: set [traces.prices.big]" in str(unpriced)
    project("[traces.prices]\nbig = { input = 1000.0, output = 10000.0 }\n")
    tight = run(*options, "--budget", "cost=0.1")
    assert tight.exit_code == Exit.OVER_BUDGET and len(teacher.bodies) == 1  # Nothing tells what a run costs before it.
    assert "stopped: the budget of money is used up: 0.19 of 0.1 are spent, and a run may take 0.19" in tight.stderr
    none = run(*options, "--budget", "cost=0.1")
    assert none.exit_code == Exit.OVER_BUDGET and len(teacher.bodies) == 1
    assert "5 runs to make, about 500 tokens and 0.95 USD (by 1 recorded runs)" in none.stderr
    some = run(*options, "--budget", "cost=0.5", "--json")
    told = json.loads(some.stdout)
    assert some.exit_code == Exit.OVER_BUDGET
    assert (told["made"], len(told["accepted"]), round(told["cost"], 6)) == (2, 3, 0.38)
    rest = run.json(*options, "--budget", "tokens=5000")
    assert (rest["made"], len(rest["accepted"])) == (3, TASKS)
    assert set(teacher.asked.values()) == {1}


def test_runs_can_be_made_again_and_those_before_count_no_longer(
    run: Any, lesson: tuple[str, ...], teacher: Teacher
) -> None:
    options = ("teach", *lesson, "--teacher", "big")
    run.json(*options)
    assert run.json(*options, "--again")["made"] == TASKS
    mined = run.json("mine", "--agent", "clerk")
    assert mined["refused"] == {"not accepted by teach: it was made again": TASKS}


def test_a_teacher_that_is_down_takes_nothing_from_runs_that_were_made_before(
    run: Any, lesson: tuple[str, ...], teacher: Teacher
) -> None:
    options = ("teach", *lesson, "--teacher", "big", "--concurrency", "1")
    before, good = run.json(*options), teacher.replies
    teacher.replies = lambda question, time: 503 if int(question) > 3 else good(question, time)
    assert isinstance(run.error(*options, "--again"), ServerError)
    mined = run.json("mine", "--agent", "clerk")
    assert (mined["turns"], mined["refused"]["not accepted by teach: it was made again"]) == (TASKS, 3)
    after = run.json(*options)
    assert (after["made"], len(after["accepted"])) == (0, TASKS)
    assert len({*before["accepted"].values()} & {*after["accepted"].values()}) == TASKS - 3


def test_a_budget_has_one_limit_of_each_kind(run: Any, lesson: tuple[str, ...]) -> None:
    refused = run.error("teach", *lesson, "--teacher", "big", "--budget", "tokens=5", "--budget", "tokens=100")
    assert str(refused) == "--budget names tokens twice: give it one limit"


def test_each_agent_can_have_another_teacher(
    run: Any, lesson: tuple[str, ...], tmp_path: Path, teacher: Teacher, workspace: Workspace
) -> None:
    (tmp_path / "moons.toml").write_text(
        '[orchestrator]\nname = "planner"\nmodel = "far"\n' + CREW.replace('"moons"', '"two"', 1)
    )
    text = (tmp_path / "moons.toml").read_text()
    (tmp_path / "moons.toml").write_text('name = "two"\n' + text.replace('name = "two"\n', "", 1))
    plan = json.dumps({"assignments": [{"worker": "clerk", "goal": "double it"}]})
    teacher.replies = lambda question, _: plan
    rows = [json.loads(line) for line in (tmp_path / "lesson.jsonl").read_text().splitlines()][:2]
    for row in rows:
        work = {"calls": [{"sum": {"expression": f"2 * {row['prompt']}"}}], "answer": str(row["reference"])}
        row["demonstration"] = {"assignments": [{"worker": "clerk", "goal": "double it", **work}]}
    (tmp_path / "lesson.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = run.json("teach", *lesson, "--teacher", "planner=big", "--teacher", "clerk=demonstrations")
    assert list(told["accepted"]) == ["q1", "q2"]
    asked = {(turn.agent, turn.policy) for trace in workspace.store.traces() for turn in trace.turns}
    assert asked == {("planner", "big"), ("clerk", "teacher")}
    assert run.json("mine", "--agent", "planner")["rows"] == 2


def test_a_student_is_shown_its_own_prompt_whatever_its_teacher_was_shown(
    run: Any, lesson: tuple[str, ...], tmp_path: Path, teacher: Teacher
) -> None:
    crew = tmp_path / "moons.toml"
    example = '[[workers.clerk.examples]]\nuser = "9"\nassistant = \'{"answer": "18"}\'\n'
    crew.write_text(crew.read_text() + example)
    teacher.replies = lambda question, _: write_answer("2")
    run("teach", *lesson, "--teacher", "big", "--min-score", "0")
    assert len(teacher.bodies[0]["messages"]) == 4
    rows = read_samples(Path(run.json("mine", "--agent", "clerk")["path"]), SFTSample)
    assert {len(row.messages) for row in rows} == {2}


def test_an_adapter_teaches_its_own_agent_and_its_rows_have_the_tokens_that_were_sampled(
    run: Any, files: list[str], url: str, peer: Any, make_adapter: Callable[..., Path]
) -> None:
    make_adapter("worker@1")
    told = run.json("teach", *files, "--teacher", "worker@1", "--attach", url)
    assert (len(told["accepted"]), list(peer.loaded)) == (24, ["worker@1"])
    (tokens,) = {row.token_ids for row in read_samples(Path(run.json("mine", "--agent", "worker")["path"]), SFTSample)}
    assert tokens == (1, 2)


def test_of_the_base_model_the_best_runs_are_kept_and_half_the_tasks_have_none(
    run: Any, files: list[str], url: str, peer: Any
) -> None:
    result = run("teach", *files, "--teacher", "base", "--best-of", "2", "--attach", url, "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, len(told["accepted"]), told["runs"], len(peer.chats)) == (Exit.PARTIAL, 12, 48, 48)
    assert told["refused"] == {"score below 1": 24, "another run of the task was better": 12}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--teacher", "huge"], "there is no teacher 'huge': name an endpoint of [models] that is declared one (big)"),
        (["--teacher", "pupil"], "models.pupil isn't declared a teacher: write `teacher = true` under [models.pupil]"),
        (["--teacher", "typist=big"], "has no agent 'typist' to teach; it has: clerk"),
        (["--teacher", "=big"], "write NAME, or AGENT=NAME as in planner=big"),
        (["--teacher", "other@3"], "other@3 is an adapter of 'other'; crew 'moons' has: clerk"),
        (["--teacher", "clerk@3"], "there is no adapter clerk@3"),
        (["--teacher", "nowhere:Model"], "teacher 'nowhere:Model' cannot be imported"),
        (["--teacher", "lesson_models:broken"], "can't be made: RuntimeError: no weights"),
        (["--teacher", "lesson_models:TASKS"], "isn't a model, it lacks provider, complete, aclose"),
        (["--teacher", "lesson_models:Doubling", "--teacher", "clerk=demonstrations"], "no task of it has"),
        ([], "lesson.jsonl: no task of it has a `demonstration` to teach with: add one to its line"),
        (["--teacher", "big", "--best-of", "3", "--temperature", "0"], "best of 3 at temperature 0"),
        (["--teacher", "lesson_models:Doubling", "--best-of", "3"], "of a teacher that always says the same"),
        (["--teacher", "big", "--budget", "5"], "--budget '5': write cost=MONEY or tokens=NUMBER, as in cost=5"),
        (["--teacher", "big", "--budget", "cost=-1"], "teach: 'limit.cost'"),
        (["--teacher", "big", "--verify", "nmber"], "unknown verifier 'nmber'"),
        (["--teacher", "big", "--scorer", "nowhere:score"], "scorer 'nowhere:score' cannot be imported"),
        (["--teacher", "big", "--teacher", "base"], "--teacher names big and base for all agents: name one of them"),
        (["--teacher", "clerk=big", "--teacher", "clerk=base"], "--teacher names big and base for clerk"),
        (["--teacher", "big", "--tasks", "gate"], "--tasks gate: nobody may learn from that set; teach with train"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_asked(
    run: Any,
    lesson: tuple[str, ...],
    here: str,
    project: Callable[..., None],
    teacher: Teacher,
    arguments: list[str],
    words: str,
) -> None:
    project(f'[models.pupil]\nurl = "{teacher.url}"\nmodel = "m"\n')
    error = run.error("teach", *lesson, *arguments)
    assert words in str(error) and "\n" not in str(error)
    assert teacher.bodies == [] and error.exit_code in (1, 2)


def test_held_out_tasks_are_passed_over_and_a_file_of_them_is_refused(
    run: Any, lesson: tuple[str, ...], project: Callable[..., None], tmp_path: Path, teacher: Teacher
) -> None:
    project('[tasks]\ngate = "gate.jsonl"\n')
    gate = tmp_path / "gate.jsonl"
    gate.write_text("".join((tmp_path / "lesson.jsonl").read_text().splitlines(keepends=True)[:2]))
    told = run.json("teach", *lesson, "--teacher", "big")
    assert (told["tasks"], told["passed_over"]) == (TASKS - 2, {"a task of gate": 2})
    assert {*teacher.asked} == {"3", "4", "5", "6"}
    refused = run.error("teach", *lesson[:2], "--tasks", str(gate), "--teacher", "big")
    assert isinstance(refused, ConfigError)
    assert "gate.jsonl: nobody may learn from any task of it: a task of gate (2)" in str(refused)


@pytest.mark.parametrize("content", ["digest", "off"])
def test_where_texts_are_not_recorded_nothing_is_paid_for(
    run: Any, lesson: tuple[str, ...], project: Callable[..., None], teacher: Teacher, content: str
) -> None:
    project(f'[traces]\ncontent = "{content}"\n')
    refused = str(run.error("teach", *lesson, "--teacher", "big"))
    assert (
        f'nothing can be learned from what `content = "{content}"` leaves of a run: set `content = "full"`' in refused
    )
    assert teacher.bodies == []


@pytest.mark.parametrize("reference", ["null", '""', "[]", '[" "]'])
def test_a_task_without_a_reference_is_told_before_anything_is_asked(
    run: Any, lesson: tuple[str, ...], tmp_path: Path, teacher: Teacher, reference: str
) -> None:
    (tmp_path / "lesson.jsonl").write_text(f'{{"id": "q1", "prompt": "1", "reference": {reference}}}\n')
    refused = str(run.error("teach", *lesson, "--teacher", "big"))
    assert "1 tasks have no `reference` to score by, the first is 'q1': add it, or name another --scorer" in refused
    assert teacher.bodies == []


def test_a_scorer_that_breaks_is_one_line(run: Any, lesson: tuple[str, ...], here: str) -> None:
    error = run.error("teach", *lesson, "--teacher", "big", "--scorer", f"{here}:lost")
    assert isinstance(error, TrainingError) and "the scorer broke on task 'q" in str(error)
