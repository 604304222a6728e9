"""The policies of the moment: read once, known by change, and never by the weights."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import sleep

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.worker import write_answer
from journeyman.runtime.adapters.adapter import RECORD, WEIGHTS
from journeyman.runtime.adapters.current import TICK_NS, CurrentPolicies
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, StoreError

MakeAdapter = Callable[..., Path]


@pytest.fixture
def policies(workspace: Workspace) -> CurrentPolicies:
    return CurrentPolicies(workspace)


def elsewhere(workspace: Workspace, call: str) -> None:
    """Another process promotes or rolls back."""
    code = (
        "import sys; from pathlib import Path; from journeyman.runtime.workspace import Workspace\n"
        "from journeyman.runtime.adapters.live import promote, rollback\n"
        f"{call}"
    )
    subprocess.run(
        [sys.executable, "-c", code.replace("HERE", f"Workspace(Path({str(workspace.root)!r}))")], check=True
    )


def test_what_another_process_promotes_or_rolls_back_is_what_the_next_run_asks(
    workspace: Workspace, policies: CurrentPolicies, make_adapter: MakeAdapter
) -> None:
    make_adapter("worker@1")
    make_adapter("worker@2")
    model = ScriptedModel(lambda request: write_answer(request.policy))
    crew = Crew(name="crew", orchestrator=None, workers=(Agent(name="worker", instructions="Work."),))
    runtime = Runtime(crew, model=model, policies=policies)
    assert runtime.run_sync("Who?").answer == "base"
    for call, policy in (
        ("promote(HERE, 'worker@1', reason='', server=None)", "worker@1"),
        ("promote(HERE, 'worker@2', reason='', server=None)", "worker@2"),
        ("rollback(HERE, 'worker', reason='', server=None)", "worker@1"),
    ):
        elsewhere(workspace, call)
        assert runtime.run_sync("Who?").answer == policy
        assert policies().digests.keys() == {policy}


def test_each_change_of_the_project_file_is_seen_however_soon_it_comes_after_the_one_before(
    workspace: Workspace, policies: CurrentPolicies, make_adapter: MakeAdapter
) -> None:
    for number in range(10):
        make_adapter(f"worker@1{number}")
    for number in range(200):
        policy = f"worker@1{number % 10}"
        workspace.config_file.write_text(f'[agents.worker]\npolicy = "{policy}"\n')
        assert policies().agents == {"worker": policy}
    workspace.config_file.unlink()
    assert policies().agents == {}


def test_what_did_not_change_is_not_read_again(workspace: Workspace, policies: CurrentPolicies) -> None:
    workspace.config_file.write_text('[agents.worker]\nfallback = ["base"]\n')
    sleep(2 * TICK_NS / 1e9)
    first = policies()
    assert policies() is first
    os.utime(workspace.config_file, (0, 0))
    again = policies()
    assert again is not first and again == first


def test_the_weights_of_an_adapter_that_the_project_names_are_never_read(
    workspace: Workspace, policies: CurrentPolicies, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter("worker@3")
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)  # To open it is to wait for ever.
    workspace.config_file.write_text('[agents.worker]\npolicy = "worker@3"\n')
    digest = policies().digests["worker@3"]
    assert digest in (folder / RECORD).read_text()


def test_an_adapter_that_is_gone_or_has_another_record_is_noticed(
    workspace: Workspace, policies: CurrentPolicies, make_adapter: MakeAdapter
) -> None:
    record = make_adapter("worker@3") / RECORD
    workspace.config_file.write_text('[agents.planner]\nfallback = ["worker@3"]\n')
    sleep(2 * TICK_NS / 1e9)
    digest = policies().digests["worker@3"]
    record.write_text(record.read_text().replace(digest, "f" * 64))
    assert policies().digests["worker@3"] == "f" * 64
    record.unlink()
    with pytest.raises(AdapterError, match="no such file"):
        policies()


def test_a_damaged_journal_is_told_to_each_run_until_it_is_mended(
    workspace: Workspace, policies: CurrentPolicies
) -> None:
    workspace.journal.write_text("rubbish\n")
    for _ in range(2):
        with pytest.raises(StoreError, match="line 1: damaged"):
            policies()
    workspace.journal.write_text("")
    assert policies().agents == {}
