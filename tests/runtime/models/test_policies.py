"""The policy table: who answers, and who stands in."""

from journeyman.agents.agent import Agent
from journeyman.runtime.models.policies import PolicyTable

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
