"""Verifiers: what each of those in the box accepts, and what becomes of one that breaks."""

import json

import pytest
from pydantic import JsonValue, ValidationError

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.plan import Assignment
from journeyman.agents.verify import Verifier, refusal

GOAL = Assignment(id="1", worker="lookup", goal="How far?")


def even(output: JsonValue, assignment: Assignment) -> str | None:
    return None if int(str(output)) % 2 == 0 else f"{output} is odd, for {assignment.goal!r}"


@pytest.mark.parametrize(
    ("verifier", "good", "bad"),
    [
        ("integer", ["42", "-7", "1,250,000", " 3 "], ["4.2", "12,50", "forty", "", "3 km", "4\n2"]),
        ("number", ["42", "-7.5", "1,250.25", "6e3"], ["about 42", "1.2.3", "", "1,25"]),
        ("date", ["2024-02-29"], ["2023-02-29", "29.2.2024", "today", ""]),
        ("unit:km", ["12 km", "1,200.5km"], ["12", "12 m", "km", "12 kmh"]),
        ("pattern:[A-Z]{2}", ["DE"], ["de", "DEU"]),
        ("one_of:yes|no", ["yes", "no"], ["Yes", "maybe", ""]),
        ('json_schema:{"type": "object", "required": ["a"]}', ['{"a": 1}'], ["{}", "[]", "{a: 1}"]),
    ],
)
def test_a_verifier_in_the_box_accepts_what_it_names_and_gives_a_reason_for_the_rest(
    verifier: str, good: list[str], bad: list[str]
) -> None:
    assert [value for value in good if refusal([verifier], value, GOAL) is not None] == []
    reasons = [refusal([verifier], value, GOAL) for value in bad]
    assert all(reasons)
    assert not any("\n" in str(reason) for reason in reasons)


def test_each_value_of_a_list_is_looked_at_and_a_list_without_any_passes() -> None:
    assert refusal(["integer"], ["1", "2"], GOAL) is None
    assert refusal(["integer"], ["1", "two"], GOAL) == "'two' is not a whole number"
    assert refusal(["integer"], [], GOAL) is None


def test_ones_own_function_sees_the_output_and_its_assignment() -> None:
    assert refusal([even], "4", GOAL) is None
    assert refusal([even], "5", GOAL) == "5 is odd, for 'How far?'"


def test_the_first_refusal_counts() -> None:
    assert refusal(["integer", even], "five", GOAL) == "'five' is not a whole number"


def test_a_verifier_that_breaks_has_not_accepted_the_output() -> None:
    assert str(refusal([even], "five", GOAL)).startswith("verifier even broke: ValueError: ")


def test_a_verifier_that_says_yes_or_no_has_not_said_why() -> None:
    assert refusal([lambda output, goal: True], "5", GOAL) == (  # type: ignore[list-item, return-value]
        "verifier test_a_verifier_that_says_yes_or_no_has_not_said_why.<locals>.<lambda> broke: "
        "it gave True, neither None nor a reason"
    )


def test_a_verifier_may_be_named_by_its_module() -> None:
    assert refusal(["operator:eq"], "5", GOAL) is not None
    agent = Agent(name="a", instructions="i", verify=("integer", "operator:eq"))
    assert agent.verify == ("integer", "operator:eq")


@pytest.mark.parametrize(
    ("verifier", "reason"),
    [
        ("whole", "unknown verifier 'whole'"),
        ("nowhere:check", "cannot be imported"),
        ("json:nothing", "cannot be imported"),
        ("string:digits", "is a str, not a function"),
        ("pattern:[", "isn't a regular expression"),
        ("json_schema:{", "holds no JSON schema"),
        ('json_schema:{"type": 3}', "holds no JSON schema"),
        ("unit:", "needs a unit"),
        ("pattern:", "needs a regular expression"),
        ("one_of:yes|", "has an empty choice"),
        ("..:check", "cannot be imported"),
        ("json:loads", "must be a plain function of two: an output and its assignment"),
        ("asyncio:sleep", "must be a plain function of two: an output and its assignment"),
    ],
)
def test_a_verifier_that_is_none_is_refused_when_the_agent_is_made(verifier: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Agent(name="a", instructions="i", verify=(verifier,))


def test_an_agent_is_written_down_with_the_names_of_its_verifiers() -> None:
    own: Verifier = even
    crew = Crew(name="c", orchestrator=None, workers=(Agent(name="a", instructions="i", verify=("date", own)),))
    assert json.loads(crew.model_dump_json(exclude={"tools"}))["workers"][0]["verify"] == ["date", "even"]
