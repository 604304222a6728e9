"""Who answers for whom: teachers where somebody is named, what is in service for the others, and nobody beside them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.demonstrations import TEACHER
from journeyman.training.improve.teachers import DEMONSTRATIONS, EVERYBODY, find_teachers

CREW = Crew(
    name="pair",
    orchestrator=Agent(name="planner", instructions="Plan.", judge=True, fallback=("base",)),
    workers=(Agent(name="clerk", instructions="Work.", model="base", fallback=("big",)),),
)
SHOWN = Task(
    id="q1", prompt="How many?", demonstration={"assignments": [{"worker": "clerk", "goal": "x", "answer": "2"}]}
)
BARE = Task(id="q2", prompt="How much?")


@pytest.fixture
def project(workspace: Workspace) -> Workspace:
    endpoint = 'url = "http://127.0.0.1:9"\nmodel = "m"\nteacher = true\n'
    (workspace.root.parent / PROJECT_FILE).write_text(f"[models.big]\n{endpoint}")
    for agent in ("clerk", "stranger"):
        Journal(workspace.journal).append(agent, "promote", f"{agent}@1", expected="base", digest="d", reason="better")
    return workspace


def test_a_teacher_for_everybody_is_the_judge_s_too_and_nothing_stands_in_for_it(project: Workspace) -> None:
    teachers = find_teachers(project, CREW, [BARE], {EVERYBODY: "big"})
    assert teachers.policies.agents == {"planner": "big", "clerk": "big", "judge": "big"}
    assert teachers.asked == {"big"} and teachers.samples


def test_whom_nobody_teaches_is_answered_by_what_is_in_service(
    project: Workspace, make_adapter: Callable[..., Path]
) -> None:
    make_adapter("clerk@1")
    crew = CREW.model_copy(update={"workers": (Agent(name="clerk", instructions="Work."),)})
    teachers = find_teachers(project, crew, [BARE], {"planner": "big"})
    assert teachers.policies.agents == {"planner": "big", "clerk": "clerk@1"}  # Another crew's agents don't matter.
    assert teachers.asked == {"big", "clerk@1", "base"}


def test_recorded_work_needs_no_server_and_passes_over_what_nobody_did(project: Workspace) -> None:
    teachers = find_teachers(project, CREW, [SHOWN, BARE], {EVERYBODY: DEMONSTRATIONS})
    assert (teachers.tasks, teachers.without, teachers.samples) == ((SHOWN,), 1, False)
    assert teachers.asked == {TEACHER}
    assert teachers.backend(project).server is None


def test_an_adapter_teaches_its_own_agent_only(project: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"clerk@1 is an adapter of 'clerk' and can't teach 'planner'"):
        find_teachers(project, CREW, [BARE], {"planner": "clerk@1"})


def test_an_endpoint_may_not_have_the_name_of_recorded_work(project: Workspace) -> None:
    text = (project.root.parent / PROJECT_FILE).read_text()
    Path(project.root.parent / PROJECT_FILE).write_text(text.replace("models.big", f"models.{TEACHER}"))
    with pytest.raises(ConfigError, match=r"models\.teacher has the name under which demonstrations are recorded"):
        find_teachers(project, CREW, [SHOWN], {EVERYBODY: DEMONSTRATIONS})
