"""The model that says what it was told to."""

import pytest

from journeyman.agents.model import Model, ModelRequest, StreamingModel
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.traces.errors import ModelError
from journeyman.traces.messages import Message, ToolCall

REQUEST = ModelRequest(policy="base", messages=(Message(role="user", content="how many moons?"),))


async def test_it_answers_in_turn_and_then_has_nothing_left() -> None:
    model: Model = ScriptedModel(["one", ModelError("busy", kind="rate_limited")])
    assert (await model.complete(REQUEST)).content == "one"
    with pytest.raises(ModelError, match="busy"):
        await model.complete(REQUEST)
    with pytest.raises(ModelError, match="no reply left for request 3"):
        await model.complete(REQUEST)


async def test_a_streamed_reply_is_the_same_reply_word_by_word() -> None:
    model = ScriptedModel(lambda request: " two  moons:\nPhobos and Deimos ")
    shown: list[str] = []
    assert isinstance(model, StreamingModel)
    streamed = await model.stream_reply(REQUEST, shown.append, shown.clear)
    whole = await model.complete(REQUEST)
    assert "".join(shown) == streamed.content == whole.content
    assert len(shown) == streamed.usage.output_tokens == 5


async def test_a_reply_longer_than_allowed_is_cut_off() -> None:
    reply = await ScriptedModel(["one two three"]).complete(REQUEST.model_copy(update={"max_tokens": 2}))
    assert (reply.content.split(), reply.finish_reason) == (["one", "two"], "length")


async def test_a_message_may_hold_calls_in_the_model_s_own_template() -> None:
    call = ToolCall(id="c1", name="look_up", arguments={"query": "moons"})
    reply = await ScriptedModel([Message(role="assistant", content="", tool_calls=(call,))]).complete(REQUEST)
    assert (reply.tool_calls, reply.finish_reason) == ((call,), "tool_calls")
