"""The content policy: nothing that may not be kept reaches a sink, and what is left still makes a trace."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble, refusal, withheld
from journeyman.traces.capture.content import IDS, METADATA, TOKENS, Content, ContentPolicy
from journeyman.traces.capture.log import SpanLog, SpanRecord, read_spans
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.messages import Message, prompt_attributes, reply_attribute
from journeyman.traces.trace import Outcome, Task

MAIL = "ann@example.com"
KEY = "sk-proj-Zx9Qm2Lw7Rt4Vb8Ny3Kc6Hd1Jf5Gs0Ap"

TEXTS = {a.TOOL_DEFINITIONS, a.INPUT_MESSAGES, a.OUTPUT_MESSAGES, a.SYSTEM_INSTRUCTIONS, a.TOOL_CALL_ARGUMENTS}
TEXTS |= {a.TOOL_CALL_RESULT, a.TASK, a.OUTCOME, a.GOAL, a.OUTPUT, a.PLAN, a.ERROR, a.PROMPT_DIGEST, a.EVENTS}
TEXTS |= {a.AGENT_DESCRIPTION, a.TOOL_DESCRIPTION, a.EVALUATION_EXPLANATION, a.DECISIONS}
COUNTS = {a.REQUEST_MAX_TOKENS, a.REQUEST_TEMPERATURE, a.REQUEST_SEED, a.INPUT_TOKENS, a.OUTPUT_TOKENS}
COUNTS |= {
    a.REQUEST_CHOICES,
    a.ENGINE_INFERENCE,
    a.LABEL_VERSION,
    a.CACHED_TOKENS,
    a.DEMONSTRATION,
    a.ATTEMPT,
    a.ENERGY,
    a.ENERGY_START,
    a.EVALUATION_VALUE,
    *a.ENGINE,
}


def chat(text: str = "Which films?", reply: str = "Alien", **attributes: JsonValue) -> SpanRecord:
    prompt = (Message(role="system", content="Look up."), Message(role="user", content=text))
    return SpanRecord(
        trace_id="f" * 32,
        span_id="1" * 16,
        parent_id="2" * 16,
        name="chat lookup@1",
        kind="client",
        start_ns=1,
        end_ns=2,
        status="ok",
        attributes={
            a.OPERATION: "chat",
            a.AGENT_NAME: "lookup",
            a.REQUEST_MODEL: "lookup@1",
            a.RESPONSE_MODEL: "lookup@1",
            a.ADAPTER_DIGEST: "d" * 64,
            a.PROMPT_DIGEST: "e" * 64,
            a.FINISH_REASONS: ["stop"],
            a.INPUT_TOKENS: 3,
            a.PROMPT_TOKEN_IDS: "[1, 2, 3]",
            a.TOKEN_IDS: "[4]",
            a.LOGPROBS: "[-0.5]",
            **prompt_attributes(prompt),
            a.OUTPUT_MESSAGES: reply_attribute(Message(role="assistant", content=reply), "stop"),
            **attributes,
        },
    )


def workflow(text: str = "Which films?", answer: str = "Alien") -> SpanRecord:
    task = Task(id="q1", prompt=text, reference={"film": text}, metadata={"from": text}, family="films", user="u1")
    outcome = Outcome(
        task_id="q1",
        trace_id="f" * 32,
        run_id="r1",
        status="failed",
        answer=answer,
        error=f"no {text}",
        model_calls=7,
        cost=0.5,
    )
    return chat().model_copy(
        update={
            "span_id": "2" * 16,
            "parent_id": None,
            "name": "invoke_workflow films",
            "attributes": {
                a.OPERATION: "invoke_workflow",
                a.WORKFLOW_NAME: "films",
                a.TASK_ID: "q1",
                a.TASK_FAMILY: "films",
                a.USER_ID: "u1",
                a.RUN_ID: "r1",
                a.TASK: task.model_dump_json(),
                a.OUTCOME: outcome.model_dump_json(),
            },
        }
    )


def written(span: SpanRecord) -> str:
    return json.dumps(span.model_dump(), ensure_ascii=False)


def test_every_attribute_is_an_id_or_metadata_or_content_or_a_count() -> None:
    names = {
        value for name, value in vars(a).items() if name.isupper() and isinstance(value, str) and name != "DIGEST_ONLY"
    }
    kinds = [IDS, METADATA, TOKENS, TEXTS, COUNTS]
    assert names - set().union(*kinds) == set()
    assert sum(map(len, kinds)) == len(set[str]().union(*kinds))


def test_a_span_without_secrets_is_passed_on_as_it_is() -> None:
    span = chat()
    assert ContentPolicy().apply(span) is span


@pytest.mark.parametrize("content", ["digest", "off"])
def test_no_text_and_no_token_is_kept(content: Content) -> None:
    policy = ContentPolicy(content)
    secrets = {name: json.dumps(["Nebuchadnezzar"]) for name in TEXTS - {a.TASK, a.OUTCOME, a.PROMPT_DIGEST}} | {
        "of.an.app": "Nebuchadnezzar"
    }
    for span in (chat("Nebuchadnezzar", "Nebuchadnezzar", **secrets), workflow("Nebuchadnezzar", "Nebuchadnezzar")):
        kept = policy.apply(span)
        assert "Nebuchadnezzar" not in written(kept)
        assert not TOKENS & kept.attributes.keys()
        assert kept.attributes[a.CONTENT] == content
        assert (kept.name, kept.attributes[a.OPERATION]) == (span.name, span.attributes[a.OPERATION])
    assert policy.apply(chat()).attributes[a.INPUT_TOKENS] == 3


def test_equal_texts_have_equal_digests() -> None:
    policy = ContentPolicy("digest")
    one, same, other = (policy.apply(chat(text)).attributes[a.INPUT_MESSAGES] for text in ("a", "a", "b"))
    assert one == same != other
    assert str(one).startswith("sha256:")


@pytest.mark.parametrize("content", ["digest", "off"])
def test_a_trace_without_content_still_has_its_shape_and_nobody_learns_from_it(content: Content) -> None:
    policy = ContentPolicy(content)
    plan: dict[str, JsonValue] = {a.PLAN: '{"assignments": []}', a.OUTPUT: '"x"', a.TOOL_CALL_ARGUMENTS: '{"q": "x"}'}
    tool = chat().model_copy(update={"span_id": "3" * 16, "attributes": {**plan, a.OPERATION: "execute_tool"}})
    agent = chat().model_copy(
        update={"span_id": "4" * 16, "attributes": {**plan, a.OPERATION: "invoke_agent", a.STATUS: "ok", a.GOAL: "x"}}
    )
    call = chat().model_copy(update={"parent_id": "4" * 16})
    trace = assemble(map(policy.apply, (call, tool, agent, workflow())))
    assert trace.task is not None and trace.outcome is not None
    assert (trace.task.id, trace.task.family, trace.task.user) == ("q1", "films", "u1")
    assert (trace.outcome.task_id, trace.outcome.status, trace.outcome.model_calls) == ("q1", "failed", 7)
    assert (trace.outcome.run_id, trace.outcome.cost) == ("r1", 0.5)
    trajectory = next(one for one in trace.trajectories if one.turns)
    (turn,) = trajectory.turns
    assert turn.policy == "lookup@1"
    assert refusal(turn, trajectory) == "content not recorded"


def test_secrets_are_gone_from_messages_names_lists_and_errors() -> None:
    policy = ContentPolicy(redact=["keys", "email"])
    listed: list[JsonValue] = ["fine", MAIL, {"deep": KEY}]
    extra: dict[str, JsonValue] = {a.ERROR: f"refused {KEY}", "of.an.app": listed, "password": "hunter2"}
    span = chat(f"I am {MAIL}", f"Use {KEY}", **extra)
    kept = policy.apply(span.model_copy(update={"name": f"chat {MAIL}"}))
    assert MAIL not in written(kept) and KEY not in written(kept) and "hunter2" not in written(kept)
    assert kept.name == "chat [redacted:email]"
    assert kept.attributes["of.an.app"] == ["fine", "[redacted:email]", {"deep": "[redacted:key]"}]
    (message,) = json.loads(str(kept.attributes[a.OUTPUT_MESSAGES]))
    assert message["parts"] == [{"type": "text", "content": "Use [redacted:key]"}]


def test_the_name_of_a_span_and_what_another_program_says_of_itself_are_redacted_too() -> None:
    policy = ContentPolicy()
    assert policy.apply(chat().model_copy(update={"name": f"run {KEY}"})).name == "run [redacted:key]"
    kept = policy.apply(chat(**{a.RESOURCE: json.dumps({"process.command_args": ["--key", KEY]})}))
    assert json.loads(str(kept.attributes[a.RESOURCE])) == {"process.command_args": ["--key", "[redacted:key]"]}


def test_what_comes_with_every_span_is_redacted_every_time() -> None:
    spans = [chat(**{a.SYSTEM_INSTRUCTIONS: f"Log in with {KEY}."}) for _ in range(3)]
    policy, own = ContentPolicy(), ContentPolicy(redact=[lambda text: text.replace("Log", "[redacted:verb]")])
    assert {policy.apply(span).attributes[a.SYSTEM_INSTRUCTIONS] for span in spans} == {"Log in with [redacted:key]."}
    assert all("[redacted:verb]" in str(own.apply(span).attributes[a.SYSTEM_INSTRUCTIONS]) for span in spans)


@pytest.mark.parametrize("run_id", [KEY, f"of {MAIL}"])
def test_a_run_id_that_is_none_of_ours_is_looked_at(run_id: str) -> None:
    kept = ContentPolicy(redact=("keys", "email")).apply(chat(**{a.RUN_ID: run_id}))
    assert str(kept.attributes[a.RUN_ID]).startswith("[redacted:")


def test_a_redacted_turn_loses_its_tokens_and_is_refused() -> None:
    kept = ContentPolicy().apply(chat(f"Use {KEY}"))
    assert not (TOKENS | {a.PROMPT_DIGEST}) & kept.attributes.keys()
    assert kept.attributes[a.REDACTED] == ["key"]
    assert withheld(kept.attributes) == "redacted"
    (trajectory,) = assemble([kept]).trajectories
    assert refusal(trajectory.turns[0], trajectory) == "redacted"


def test_a_user_who_is_an_address_gets_a_name_of_his_own_and_his_turns_are_still_learned_from() -> None:
    policy = ContentPolicy(redact=["email"])
    kept = policy.apply(chat(**{a.USER_ID: MAIL}))
    assert kept.attributes[a.USER_ID] == policy.key(MAIL) != policy.key("bob@example.com")
    assert policy.key("u1") == "u1"
    assert kept.attributes[a.TOKEN_IDS] == "[4]"
    assert withheld(kept.attributes) is None
    task = Task(id=MAIL, prompt="x", user=MAIL, session="s1")
    attributes = {a.TASK_ID: MAIL, a.USER_ID: MAIL, a.CONVERSATION_ID: "s1", a.TASK: task.model_dump_json()}
    run = policy.apply(workflow().model_copy(update={"attributes": attributes}))
    written_task = Task.model_validate_json(str(run.attributes[a.TASK]))
    assert (written_task.user, written_task.session) == (run.attributes[a.USER_ID], "s1")
    assert written_task.id == run.attributes[a.TASK_ID] == policy.key(MAIL)


def failing(text: str) -> str:
    raise ValueError(text)


def nothing(text: str) -> str:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize("function", [failing, nothing])
def test_a_function_that_fails_costs_the_content_and_nothing_else(
    function: object, caplog: pytest.LogCaptureFixture
) -> None:
    policy = ContentPolicy(redact=[function])  # type: ignore[list-item]
    with caplog.at_level(logging.WARNING):
        kept = [
            policy.apply(chat("Nebuchadnezzar", **{a.USER_ID: "Nebuchadnezzar"})),
            policy.apply(workflow("Nebuchadnezzar")),
        ]
    assert "Nebuchadnezzar" not in "".join(map(written, kept)) + caplog.text
    assert policy.failures == 2
    assert len(caplog.records) == 1
    assert {span.attributes[a.CONTENT] for span in kept} == {"off"}
    trace = assemble(kept)
    assert trace.outcome is not None and trace.outcome.status == "failed"
    assert policy.redact("Nebuchadnezzar").startswith("sha256:")


def test_the_tracer_applies_the_policy_before_any_sink_sees_a_span(tmp_path: Path) -> None:
    seen: list[SpanRecord] = []

    class Sink:
        def append(self, span: SpanRecord, *, sync: bool) -> None:
            seen.append(span)

    with Tracer(SpanLog(tmp_path), Sink(), content=ContentPolicy(redact=["email"])).span("run", parent=None) as span:
        span.set({"mail": MAIL})
    assert [one.attributes["mail"] for one in (*seen, *read_spans(tmp_path))] == ["[redacted:email]"] * 2


def test_a_tracer_that_nobody_told_anything_keeps_no_keys(tmp_path: Path) -> None:
    with Tracer(SpanLog(tmp_path)).span("run", parent=None) as span:
        span.set({"said": f"{MAIL} has {KEY}"})
    spans: Sequence[SpanRecord] = list(read_spans(tmp_path))
    assert spans[0].attributes["said"] == f"{MAIL} has [redacted:key]"


LONG = [Message(role="user", content=f"page {number} {'word ' * 300}") for number in range(6)]


@pytest.mark.parametrize("place", [0, 3, 6], ids=["first", "middle", "last"])
def test_a_secret_that_is_whole_only_now_is_seen_wherever_a_long_prompt_changed(place: int) -> None:
    policy = ContentPolicy()

    def said(text: str, number: int) -> str:
        prompt = [*LONG[:place], Message(role="user", content=f"use {text}"), *LONG[place:]]
        span = chat(**prompt_attributes(prompt)).model_copy(update={"span_id": f"{number:016x}"})
        return str(policy.apply(span).attributes[a.INPUT_MESSAGES])

    assert said(KEY[:16], 1).count(KEY[:16]) == 1
    for number in (2, 3):
        assert KEY[:16] not in said(KEY, number)
