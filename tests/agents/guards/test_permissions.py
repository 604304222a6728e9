"""Permissions: the first row that matches decides, on the arguments as the tool would get them."""

from typing import Annotated

import pytest
from pydantic import AfterValidator, ValidationError

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.guards.permissions import Permission, Permissions
from journeyman.tools.tool import Tool


def send(to: str, amount: int = 10) -> str:
    return f"{amount} to {to}"


SEND = Tool(send, writes=True)
READ = Tool(send, name="read_mail")


def row(decision: str, **fields: object) -> Permission:
    return Permission.model_validate({"decision": decision, **fields})


def verdict(
    *rows: Permission, agent: str = "clerk", tool: Tool = SEND, default: str = "allow", **arguments: object
) -> str:
    table = Permissions.model_validate({"rows": rows, "default": default})
    return table.decide(agent, tool, {"to": "ann", **arguments}).action


def test_an_empty_table_allows() -> None:
    assert verdict() == "allow"
    assert not Permissions()


def test_the_default_decides_where_no_row_does() -> None:
    assert verdict(row("allow", agent="cook"), default="deny") == "deny"


def test_the_first_row_that_matches_decides() -> None:
    assert verdict(row("ask", tool="send"), row("deny")) == "ask"
    assert verdict(row("deny"), row("allow", tool="send")) == "deny"


def test_a_star_stands_for_any_characters() -> None:
    assert verdict(row("deny", tool="read_*"), tool=READ) == "deny"
    assert verdict(row("deny", tool="read_*"), tool=SEND) == "allow"
    assert verdict(row("deny", agent="cl*k")) == "deny"


def test_a_row_may_be_for_tools_that_write() -> None:
    assert verdict(row("deny", writes=True), tool=SEND) == "deny"
    assert verdict(row("deny", writes=True), tool=READ) == "allow"
    assert verdict(row("deny", writes=False), tool=READ) == "deny"


def test_an_expression_must_match_the_whole_argument() -> None:
    only_ann = row("allow", arguments={"to": "ann"})
    assert verdict(only_ann, default="deny", to="ann") == "allow"
    assert verdict(only_ann, default="deny", to="ann, bob") == "deny"
    assert verdict(only_ann, default="deny", to="ann\n") == "deny"


def test_a_line_break_does_not_hide_what_an_expression_forbids() -> None:
    assert verdict(row("deny", arguments={"to": ".*bob.*"}), to="ann\nbob") == "deny"


def test_arguments_are_judged_as_the_tool_would_get_them() -> None:
    large = row("deny", arguments={"amount": r"\d{3,}"})
    assert verdict(large, amount=500) == "deny"
    assert verdict(large, amount="500") == "deny"
    assert verdict(row("deny", arguments={"amount": "10"})) == "deny", "a default is an argument too"


def test_an_argument_that_is_not_there_matches_nothing() -> None:
    assert verdict(row("deny", arguments={"cc": ".*"})) == "allow"


def test_invalid_arguments_are_still_judged() -> None:
    assert verdict(row("deny", arguments={"to": "bob"}), to="bob", amount="many") == "deny"


def test_a_tool_that_wants_approval_is_asked_for_where_the_table_allows_it() -> None:
    careful = Tool(send, approve=True)
    decision = Permissions().decide("clerk", careful, {"to": "ann"})
    assert (decision.action, decision.name) == ("ask", "approve")
    assert verdict(row("deny"), tool=careful) == "deny"


def test_a_decision_says_which_row_and_why() -> None:
    table = Permissions(rows=(row("allow", agent="cook"), row("deny", tool="send", reason="ask the cook")))
    decision = table.decide("clerk", SEND, {"to": "ann"})
    assert (decision.source, decision.name, decision.point) == ("permission", "row 2", "call")
    assert decision.reason == "ask the cook"
    assert table.decide("cook", SEND, {"to": "ann"}).name == "row 1"


def test_a_broken_expression_is_refused() -> None:
    with pytest.raises(ValidationError, match="is not a regular expression"):
        row("deny", arguments={"to": "("})


def test_a_crew_refuses_a_row_that_fits_nobody() -> None:
    clerk = Agent(name="clerk", instructions="")
    with pytest.raises(ValidationError, match="permission 1: no agent is called 'clark'; the crew has: clerk"):
        Crew(name="c", orchestrator=None, workers=(clerk,), permissions=Permissions(rows=(row("deny", agent="clark"),)))
    with pytest.raises(ValidationError, match=r"permission 1: no tool is called 'shell_[*]'; the crew has: none"):
        Crew(
            name="c", orchestrator=None, workers=(clerk,), permissions=Permissions(rows=(row("deny", tool="shell_*"),))
        )


def test_the_table_has_its_say_also_where_a_tool_s_own_validator_breaks() -> None:
    def broken(value: str) -> str:
        raise KeyError(value)

    def pay(to: Annotated[str, AfterValidator(broken)]) -> str:
        return to

    table = Permissions(rows=(row("deny", arguments={"to": "bob"}),))
    assert table.decide("clerk", Tool(pay), {"to": "bob"}).action == "deny"
    assert table.decide("clerk", Tool(pay), {"to": "ann"}).action == "allow"
