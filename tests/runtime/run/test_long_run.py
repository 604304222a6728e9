"""A long run, whose prompts are recorded as they grow, is kept as the content policy says."""

from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.tools.tool import Tool
from journeyman.traces import attributes as a
from journeyman.traces.capture.content import Content, ContentPolicy
from journeyman.traces.capture.log import LogReader, SpanLog, SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.messages import read_prompt

SECRET = "sk-proj-Zx9Qm2Lw7Rt4Vb8Ny3Kc6Hd1Jf5Gs0Ap"
TURNS = 8


class Model(ScriptedModel):
    """Calls the tool in each turn; its replies have the token ids of their prompts."""

    def __init__(self) -> None:
        super().__init__([write_call("look", {"page": number}) for number in range(TURNS)] + [write_answer("done")])

    async def complete(self, request: ModelRequest) -> ModelReply:
        reply = await super().complete(request)
        size = sum(len(message.content) for message in request.messages)
        return reply.model_copy(update={"prompt_token_ids": (*range(size),), "token_ids": (1,), "logprobs": (-0.5,)})


async def recorded(folder: Path, policy: ContentPolicy, secret_on: int | None) -> tuple[Model, list[SpanRecord]]:
    """The model and its calls' spans of a run in which the tool's result for a page holds a secret."""

    def look(page: int) -> str:
        return f"page {page}: {'word ' * 600}{SECRET if page == secret_on else 'none'}{' word' * 600}"

    reader = Agent(name="reader", instructions="Read.", tools=("look",), limits=Limits(turns=TURNS + 1))
    crew = Crew(name="readers", orchestrator=None, workers=(reader,), tools={"look": Tool(look, description="Looks.")})
    model = Model()
    async with Runtime(crew, model=model, tracer=Tracer(log := SpanLog(folder), content=policy)) as runtime:
        outcome = await runtime.run("Read all pages.")
    log.close()
    assert outcome.answer == "done"
    return model, [span for span in LogReader(folder) if span.attributes[a.OPERATION] == "chat"]


@pytest.mark.parametrize("page", range(TURNS))
async def test_a_secret_in_a_result_is_in_no_later_prompt(page: int, tmp_path: Path) -> None:
    model, calls = await recorded(tmp_path, ContentPolicy(), page)
    assert not any(SECRET in span.model_dump_json() for span in LogReader(tmp_path))
    for number, (request, span) in enumerate(zip(model.requests, calls, strict=True)):
        shown = [message.content.replace(SECRET, "[redacted:key]") for message in request.messages]
        assert [message.content for message in read_prompt(span.attributes)] == shown
        clean = number <= page
        assert (a.PROMPT_TOKEN_IDS in span.attributes, a.REDACTED not in span.attributes) == (clean, clean)


async def test_a_run_without_a_secret_is_kept_as_it_was_and_takes_the_room_of_what_was_new(tmp_path: Path) -> None:
    model, calls = await recorded(tmp_path, ContentPolicy(), None)
    for request, span in zip(model.requests, calls, strict=True):
        assert read_prompt(span.attributes) == request.messages
    grown = [span for span in LogReader(tmp_path, whole=False) if span.grown]
    assert [{*span.grown} for span in grown] == [{a.INPUT_MESSAGES, a.PROMPT_TOKEN_IDS}] * (TURNS - 1)


@pytest.mark.parametrize("content", ["digest", "off"])
async def test_no_text_of_a_long_run_is_kept_where_none_may_be(content: Content, tmp_path: Path) -> None:
    _, calls = await recorded(tmp_path, ContentPolicy(content), 3)
    assert len(calls) == TURNS + 1
    for span in calls:
        assert "page" not in span.model_dump_json() and a.PROMPT_TOKEN_IDS not in span.attributes
    digests = {span.attributes.get(a.INPUT_MESSAGES) for span in calls}
    assert len(digests) == (len(calls) if content == "digest" else 1)


async def test_what_a_function_of_ones_own_takes_out_of_a_result_is_in_no_later_prompt(tmp_path: Path) -> None:
    policy = ContentPolicy(redact=[lambda text: text.replace("page 3", "page [gone]")])
    _, calls = await recorded(tmp_path, policy, None)
    assert not any("page 3:" in span.model_dump_json() for span in LogReader(tmp_path))
    assert ["page [gone]" in str(span.attributes[a.INPUT_MESSAGES]) for span in calls] == [False] * 4 + [True] * 5
