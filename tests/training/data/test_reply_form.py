"""What a person wrote for an agent is held to what that agent could be understood by."""

import json

import pytest

from journeyman.agents.worker import write_answer, write_call
from journeyman.traces.messages import Message, NotForTrainingError, reply_attribute
from journeyman.training.data.reply_form import ReplyForm, lists_calls

WORKER = ReplyForm(role="work", written=True, tools=("look",), outputs=("text",))


def fits(form: ReplyForm, text: str) -> bool:
    try:
        form.check(text)
    except NotForTrainingError:
        return False
    return True


def test_a_list_of_calls_is_for_an_agent_that_makes_several_at_once() -> None:
    several = json.dumps([{"look": {}}, {"look": {"at": 2}}])
    assert not fits(WORKER, several)
    assert fits(WORKER._replace(several=True), several)


@pytest.mark.parametrize(
    ("reply", "listed"), [('[{"look": {}}]', True), ('{"look": {}}', False), ("look at that", False)]
)
def test_whether_calls_are_listed_shows_in_the_reply_that_was_given(reply: str, listed: bool) -> None:
    assert lists_calls(reply_attribute(Message(role="assistant", content=reply))) is listed
    assert not lists_calls(None)


def test_an_answer_may_be_of_any_kind_while_no_report_says_which() -> None:
    unknown = WORKER._replace(outputs=("text", "values"))
    assert fits(unknown, write_answer("4")) and fits(unknown, write_answer(["4"]))
    assert not fits(WORKER, write_answer(["4"]))


def test_a_verdict_has_a_reason() -> None:
    judge = WORKER._replace(role="verdict")
    assert fits(judge, '{"reason": "it is 4", "sufficient": true}')
    assert not fits(judge, '{"sufficient": true}') and not fits(judge, write_answer("4"))


def test_an_answer_that_looks_like_a_call_is_still_an_answer() -> None:
    assert WORKER.answer(write_call("look", {})) == write_answer(write_call("look", {}))
    assert WORKER.answer(write_answer("4")) == write_answer("4")
