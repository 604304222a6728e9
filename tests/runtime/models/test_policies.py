"""The policy table: who answers, and who stands in."""

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.prompt import prompt_form
from journeyman.runtime.models.policies import CheckedPolicies, PolicyTable

AGENT = Agent(name="worker", instructions="work")


def test_an_agent_without_a_row_is_answered_by_the_base_model_alone() -> None:
    assert PolicyTable().chain(AGENT) == ("base",)


def test_the_crew_s_policy_comes_before_the_table_s() -> None:
    table = PolicyTable(agents={"worker": "worker@2"})
    assert table.policy(AGENT) == "worker@2"
    assert table.policy(AGENT.model_copy(update={"model": "big"})) == "big"


def test_a_chain_begins_with_the_route_and_names_each_policy_once() -> None:
    table = PolicyTable(agents={"worker": "worker@2"}, fallbacks={"worker": ("base", "big")})
    careful = AGENT.model_copy(update={"fallback": ("other", "base")})
    assert table.chain(AGENT) == ("worker@2", "base", "big")
    assert table.chain(AGENT, "big") == ("big", "worker@2", "base")
    assert table.chain(careful) == ("worker@2", "other", "base", "big")


def test_an_adapter_that_is_shown_another_prompt_than_it_was_trained_on_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crew = Crew(name="office", orchestrator=None, workers=(AGENT,))
    form = prompt_form(AGENT, crew).digest
    same = PolicyTable(agents={"worker": "worker@2"}, forms={"worker@2": form})
    other = same.model_copy(update={"forms": {"worker@2": "f" * 16}})
    for table in (same, PolicyTable(agents={"worker": "worker@3"}), other, other.model_copy()):
        assert CheckedPolicies(crew, lambda table=table: table)() == table  # type: ignore[misc]
    assert [record.message for record in caplog.records] == [
        f"worker@2 was trained on another prompt of worker (ffffffffffffffff) than crew office has now ({form}): "
        "train it on rows mined with --crew, or restore the instructions"
    ]
