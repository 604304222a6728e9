"""The examples that embed a crew work: in a web app over HTTP, and in a plain script."""

import json
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from fastapi.testclient import TestClient

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime import RunStore, Runtime, ScriptedModel, tool
from journeyman.tools.ask import ask

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@tool
def price(item: str) -> str:
    """The price of a drink."""
    return f"{item} costs 4.50"


CREW = Crew(
    name="cafe",
    orchestrator=None,
    workers=(Agent(name="waiter", instructions="Serve.", tools=("price", "ask"), limits=Limits(turns=3)),),
    tools={"price": price, "ask": ask()},
)


def answers(request: ModelRequest) -> str:
    last = request.messages[-1].content
    if ": " in last:
        return write_answer(last.partition(": ")[2])
    if last == "a surprise":
        return write_call("ask", {"question": "Which?"})
    return write_call("price", {"item": last})


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    def runtime() -> Runtime:
        return Runtime(CREW, model=ScriptedModel(answers), runs=RunStore(tmp_path / "runs.db"))

    with TestClient(example("fastapi_app").create_app(runtime)) as client:
        yield client


def test_the_web_app_answers_and_tells_how_a_run_stands(client: TestClient) -> None:
    outcome = client.post("/tasks", json={"prompt": "tea"}).json()
    assert (outcome["status"], outcome["answer"]) == ("ok", "tea costs 4.50")
    assert client.get(f"/runs/{outcome['run_id']}").json()["outcome"] == outcome
    assert client.get("/runs/none").status_code == 404


def test_the_web_app_streams_events_in_their_order(client: TestClient) -> None:
    text = client.post("/tasks/events", json={"prompt": "tea"}).text
    events = [block.split("\n") for block in text.strip().split("\n\n")]
    kinds = [kind.removeprefix("event: ") for kind, _ in events]
    assert [kind for kind in dict.fromkeys(kinds) if kind != "usage"] == [
        "plan",
        "worker",
        "token",
        "tool_call",
        "tool",
        "report",
        "answer",
        "ended",
    ]
    ended = json.loads(events[-1][1].removeprefix("data: "))
    assert ended["outcome"]["answer"] == "tea costs 4.50"


def test_the_web_app_tells_what_is_wrong_with_a_task(client: TestClient) -> None:
    refused = client.post("/tasks", json={"prompt": "t\0ea"})
    assert (refused.status_code, "null character" in refused.json()["detail"]) == (422, True)
    kind, told = client.post("/tasks/events", json={"prompt": "t\0ea"}).text.strip().split("\n")
    assert (kind, "null character" in json.loads(told.removeprefix("data: "))["error"]) == ("event: error", True)


def test_through_the_web_app_a_person_answers_a_question(client: TestClient) -> None:
    waiting = client.post("/tasks", json={"prompt": "a surprise"}).json()
    assert waiting["status"] == "needs_input"
    run = f"/runs/{waiting['run_id']}"
    (question,) = client.get(run).json()["pending"]
    assert question["text"] == "Which?"
    wrong = client.post(f"{run}/answers", json={"nonsense": "cake"})
    assert (wrong.status_code, "no question 'nonsense'" in wrong.json()["detail"]) == (409, True)
    wrong = client.post(f"{run}/answers", json={question["id"]: {"approved": True}})
    assert (wrong.status_code, "does not want a yes or no" in wrong.json()["detail"]) == (409, True)
    assert client.post(f"{run}/answers", json={question["id"]: "cake"}).json()["answer"] == "cake"


def test_the_web_app_streams_what_comes_after_an_answer(client: TestClient) -> None:
    waiting = client.post("/tasks", json={"prompt": "a surprise"}).json()
    run = f"/runs/{waiting['run_id']}"
    (question,) = client.get(run).json()["pending"]
    *steps, ended = client.post(f"{run}/answers/events", json={question["id"]: "cake"}).text.strip().split("\n\n")
    assert any(step.startswith("event: tool\n") for step in steps)
    assert json.loads(ended.partition("data: ")[2])["outcome"]["answer"] == "cake"
    assert "event: error" in client.post("/runs/none/answers/events", json={}).text


def test_the_script_prints_each_step_and_ends_with_the_code_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    script = example("script")
    assert script.work(Runtime(CREW, model=ScriptedModel(answers)), "tea") == 0
    assert capsys.readouterr().out.splitlines() == ["waiter: tea", "  tea → tea costs 4.50", "tea costs 4.50"]
    assert script.work(Runtime(CREW, model=ScriptedModel([])), "tea") == 1
    assert "the script has no reply left" in capsys.readouterr().out
