"""Guardrails: what is found is blocked, taken out, told, or put to a person; a failed check lets nothing through."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.budget import Budget
from journeyman.agents.crew_file import load_crew
from journeyman.agents.decision import Decision, write_decisions
from journeyman.agents.guards.checks import Length
from journeyman.agents.guards.guardrails import Check, CheckContext, Finding, Guardrail, Guards
from journeyman.traces.errors import ConfigError


def finds(word: str) -> Check:
    def check(text: str, context: CheckContext) -> Finding | None:
        at = text.find(word)
        return None if at < 0 else Finding(reason="it is there", spans=((at, at + len(word)),))

    return check


def guards(*guardrails: tuple[str, Check, str], **more: Any) -> Guards:
    return Guards(
        Guardrail(name=name, check=check, at="result", action=action, **more) for name, check, action in guardrails
    )


async def test_a_place_without_a_guardrail_lets_the_text_pass() -> None:
    guarded = await guards(("no", finds("x"), "block")).check("task", "x")
    assert (guarded.text, guarded.decisions, guarded.blocked) == ("x", (), None)


async def test_what_is_blocked_goes_no_further_and_says_why() -> None:
    guarded = await guards(("wall", finds("bad"), "block")).check("result", "a bad text")
    assert guarded.text == ""
    assert guarded.blocked == "wall: it is there"
    (decision,) = guarded.decisions
    assert decision == Decision(source="guardrail", name="wall", point="result", action="block", reason="it is there")


async def test_what_is_found_is_taken_out_and_the_rest_stays() -> None:
    guarded = await guards(("a", finds("one"), "redact"), ("b", finds("two"), "redact")).check(
        "result", "one, two, three"
    )
    assert guarded.text == "[redacted:a], [redacted:b], three"
    assert guarded.blocked is None


async def test_finds_that_overlap_are_taken_out_as_one() -> None:
    guarded = await guards(("a", finds("abcd"), "redact"), ("b", finds("cdef"), "redact")).check("result", "-abcdef-")
    assert guarded.text == "-[redacted:a]-"
    guarded = await guards(("a", finds("abcdef"), "redact"), ("b", finds("cd"), "redact")).check("result", "-abcdef-")
    assert guarded.text == "-[redacted:a]-", "nothing of the larger one is left"


async def test_a_reason_without_a_place_takes_the_whole_text_out() -> None:
    guarded = await guards(("a", lambda text, context: "something in there", "redact")).check("result", "secret")
    assert guarded.text == "[redacted:a]"


async def test_a_warning_changes_nothing_but_is_told() -> None:
    guarded = await guards(("w", finds("odd"), "warn")).check("result", "odd")
    assert (guarded.text, guarded.blocked, guarded.ask) == ("odd", None, None)
    assert [one.action for one in guarded.decisions] == ["warn"]


async def test_a_person_is_asked_about_the_text_as_it_would_go_on() -> None:
    both = guards(("a", finds("name"), "redact"), ("p", finds("money"), "ask"))
    guarded = await both.check("result", "name wants money")
    assert guarded.ask == "p: it is there"
    assert guarded.text == "[redacted:a] wants money"


async def test_a_block_outweighs_a_question() -> None:
    guarded = await guards(("p", finds("x"), "ask"), ("w", finds("x"), "block")).check("result", "x")
    assert guarded.blocked == "w: it is there"
    assert guarded.ask is None
    assert [one.action for one in guarded.decisions] == ["ask", "block"]


async def breaks(text: str, context: CheckContext) -> str | None:
    raise RuntimeError(f"about {text}")


async def hangs(text: str, context: CheckContext) -> str | None:
    await asyncio.sleep(60)
    return None


def overshoots(text: str, context: CheckContext) -> Finding:
    return Finding(reason="it is private", spans=((2, len(text.encode()) + 1),))


@pytest.mark.parametrize("action", ["block", "redact", "ask"])
@pytest.mark.parametrize(
    ("check", "said"),
    [
        (breaks, "the check 'w' failed (RuntimeError)"),
        (hangs, "the check 'w' failed (TimeoutError)"),
        (lambda text, context: True, "the check 'w' gave a bool, not None, a str or a Finding"),
        (overshoots, "the check 'w' named characters that the text does not have"),
    ],
)
async def test_a_check_that_fails_blocks_and_says_so_without_the_text(check: Check, said: str, action: str) -> None:
    guarded = await guards(("w", check, action), timeout_s=0.01).check("result", "a private matter")
    assert guarded.blocked == f"w: {said}"
    assert "private" not in write_decisions(guarded.decisions)


async def test_a_check_that_could_only_warn_warns_when_it_fails() -> None:
    guarded = await guards(("w", breaks, "warn")).check("result", "fine")
    assert guarded.text == "fine"
    assert guarded.decisions[0].action == "warn"


async def test_checks_of_one_place_run_at_once() -> None:
    meeting = asyncio.Barrier(3)

    async def meets(text: str, context: CheckContext) -> None:
        await meeting.wait()

    crowd = guards(*((name, meets, "block") for name in "abc"), timeout_s=5)
    assert (await crowd.check("result", "x")).blocked is None


async def test_cancelling_stops_the_checks() -> None:
    checking = asyncio.create_task(guards(("w", hangs, "block")).check("result", "x"))
    await asyncio.sleep(0)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking


async def test_a_check_is_told_where_it_is_and_what_the_text_rests_on() -> None:
    seen: list[CheckContext] = []
    watch = guards(("w", lambda text, context: seen.append(context), "block"))
    await watch.check("result", "x", agent="clerk", tool="sql", evidence=["row 1"])
    assert seen == [CheckContext(point="result", agent="clerk", tool="sql", evidence=("row 1",))]


async def test_a_guardrail_may_be_for_some_agents_and_tools_only() -> None:
    some = guards(("w", finds("x"), "block"), agents="clerk", tools="sql")
    assert (await some.check("result", "x", agent="clerk", tool="sql")).blocked
    assert not (await some.check("result", "x", agent="clerk", tool="http")).blocked
    assert not (await some.check("result", "x", agent="cook", tool="sql")).blocked


async def test_those_that_only_warn_can_run_beside_the_work() -> None:
    all_of_them = guards(("w", finds("x"), "warn"), ("b", finds("x"), "block"))
    assert [one.name for one in (await all_of_them.warning.check("result", "x")).decisions] == ["w"]
    assert [one.name for one in (await all_of_them.stopping.check("result", "x")).decisions] == ["b"]


async def test_arguments_stay_arguments_when_something_is_taken_out() -> None:
    value, guarded = await guards(("a", finds("12-34"), "redact")).check_json("result", {"to": "12-34", "n": 3})
    assert value == {"to": "[redacted:a]", "n": 3}
    assert guarded.blocked is None


async def test_a_string_in_arguments_is_checked_as_it_is() -> None:
    said = 'first\nsay "no" twice'
    for word in ("first\nsay", '"no"', "twice"):
        (value, guarded) = await guards(("a", finds(word), "redact")).check_json("result", {"to": ["x", said], "n": 3})
        assert value == {"to": ["x", said.replace(word, "[redacted:a]")], "n": 3}
        assert guarded.blocked is None


async def test_a_check_is_given_the_arguments_besides_their_text() -> None:
    seen: list[CheckContext] = []
    arguments = {"sum": 5, "to": [{"name": 'Jo "B"'}], "more": {}, "none": None, "all": []}
    await guards(("a", lambda text, context: seen.append(context), "block")).check_json("result", arguments)
    assert [context.value for context in seen] == [arguments]


def test_a_find_that_ends_before_it_starts_is_refused() -> None:
    for span in ((5, 3), (-1, 2)):
        with pytest.raises(ValidationError, match="is no span"):
            Finding(reason="odd", spans=(span,))


async def test_what_cannot_be_taken_out_of_json_blocks_it() -> None:
    value, guarded = await guards(("a", finds('"n"'), "redact")).check_json("result", {"n": 3})
    assert value == {"n": 3}
    assert guarded.blocked == "what was to be taken out cannot be taken out of JSON"


async def test_a_text_output_is_checked_as_it_is() -> None:
    value, _ = await guards(("a", finds('"'), "redact")).check_json("result", 'say "no')
    assert value == "say [redacted:a]no"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"at": "task", "agents": "clerk"}, "there are no agents at 'task'"),
        ({"at": ["result", "answer"], "tools": "sql"}, "there are no tools at 'answer'"),
        ({"at": "results"}, "at.0"),
        ({"at": []}, "at"),
    ],
)
def test_a_guardrail_that_could_never_apply_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Guardrail(name="w", check=finds("x"), **fields)


def test_a_crew_refuses_a_guardrail_for_somebody_it_has_not() -> None:
    guardrail = Guardrail(name="w", check=finds("x"), at="output", agents="clark")
    with pytest.raises(ValidationError, match="guardrail 'w': unknown agent 'clark'; the crew has: clerk"):
        Crew(name="c", orchestrator=None, workers=(Agent(name="clerk", instructions=""),), guardrails=(guardrail,))


def test_a_crew_with_guardrails_can_be_written_down() -> None:
    guardrails = (
        Guardrail(name="w", check=finds("x"), at="output"),
        Guardrail(name="l", check=Length(max_chars=9), at="answer"),
    )
    crew = Crew(name="c", orchestrator=None, workers=(Agent(name="clerk", instructions=""),), guardrails=guardrails)
    written = json.loads(crew.model_dump_json(exclude={"tools"}))["guardrails"]
    assert "finds.<locals>.check" in written[0]["check"]["check"]
    assert written[1]["check"] == {"check": "journeyman.agents.guards.checks:Length", "min_chars": 0, "max_chars": 9}


CONTROLLED = """
name = "counting"

[workers.sums]
tools = ["calculator"]

[tools.calculator]
use = "calculator"

[budget]
tokens = 20_000
seconds = 60

[[guardrails]]
check = "prompt_injection"
at = "result"

[[guardrails]]
check = "length"
name = "short"
at = ["agent", "output"]
agents = "sums"
action = "redact"
max_chars = 100

[[permissions]]
agent = "sums"
tool = "calc*"
arguments.expression = "[-+*/ 0-9.()]+"
decision = "allow"

[[permissions]]
decision = "deny"
reason = "sums only"
"""


def read(folder: Path, text: str) -> Crew:
    (folder / "crew.toml").write_text(text)
    return load_crew(folder / "crew.toml")


def test_a_crew_file_says_what_its_runs_may_spend_and_do(tmp_path: Path) -> None:
    crew = read(tmp_path, CONTROLLED)
    assert crew.budget == Budget(tokens=20_000, seconds=60)
    assert [(one.name, one.at, one.action) for one in crew.guardrails] == [
        ("prompt_injection", ("result",), "block"),
        ("short", ("agent", "output"), "redact"),
    ]
    decide = crew.permissions.decide
    assert decide("sums", crew.tools["calculator"], {"expression": "2 * 3"}).action == "allow"
    assert decide("sums", crew.tools["calculator"], {"expression": "abs(3)"}).reason == "sums only"


def test_a_permission_table_may_have_a_default(tmp_path: Path) -> None:
    text = CONTROLLED.partition("[[permissions]]")[0] + '[permissions]\ndefault = "ask"\n'
    crew = read(tmp_path, text)
    assert crew.permissions.decide("sums", crew.tools["calculator"], {}).action == "ask"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tokens = 20_000", "tokns = 20_000", "crew.toml: unknown key 'budget.tokns'"),
        ("tokens = 20_000", "tokens = 0", "crew.toml: 'budget.tokens'"),
        ('at = "result"', 'at = "results"', "crew.toml: guardrail 1: 'at.0'"),
        ("max_chars = 100", "max_char = 100", "crew.toml: guardrail 2: unknown key 'max_char'"),
        ('agents = "sums"', 'agents = "summs"', "guardrail 'short': unknown agent 'summs'"),
        ('tool = "calc*"', 'tool = "clac*"', "permission 1: no tool is called 'clac*'"),
        ('decision = "deny"', 'decision = "denied"', "crew.toml: 'permissions.rows.1.decision'"),
    ],
)
def test_a_mistake_in_the_controls_of_a_crew_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, CONTROLLED.replace(old, new))
    assert said in str(refused.value)
