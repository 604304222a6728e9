"""Spans for benchmarks: crews at work on FanOutQA's own questions, recorded as vLLM would have answered them.

Texts are the wheel's, token ids one for each piece of a word, logprobs those of 32-bit floats near zero, as a server's.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count, islice
from zlib import crc32

import numpy as np
from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.messages import Message, as_json, prompt_attributes, reply_attribute, write_result
from journeyman.traces.trace import Outcome, Task
from journeyman.training.demo.decompositions import Question, read_questions
from journeyman.training.demo.fanoutqa import FAMILY, LOOKUP_INSTRUCTIONS, PLAN_INSTRUCTIONS

AGENT = "lookup"
WORKERS = (AGENT, "sql", "search", "critic")
START_NS = 1_790_000_000_000_000_000
RUN_EVERY_NS = 20_000_000_000
"""From one run's start to the next: 41,000 runs take nine and a half days."""

VOCABULARY = 49152

_PIECE = re.compile(r"\s?\w{1,6}|\W")


def spans(number: int, *, seed: int = 0) -> Iterator[SpanRecord]:
    """The first `number` spans, each run's in the order in which they end."""
    return islice(_forever(seed), number)


def _forever(seed: int) -> Iterator[SpanRecord]:
    questions = [question for question in read_questions() if question.plan is not None and question.facts]
    facts = [fact.document for question in questions for fact in question.facts]
    plans = [question.plan.model_dump_json() for question in questions if question.plan is not None]
    for number in count():
        place = number % len(questions)
        chance = random.Random(seed * 10**9 + number)
        yield from Run(number, questions[place], plans[place], facts, chance).spans()


class Run:
    """One run: a plan, then three to seven workers, each of which looks something up and answers."""

    def __init__(self, number: int, question: Question, plan: str, facts: Sequence[str], chance: random.Random) -> None:
        self._question = question
        self._plan_text = plan
        self._facts = facts
        self._chance = chance
        self._noise = np.random.default_rng(number)
        self._now = START_NS + number * RUN_EVERY_NS + chance.randrange(10**9)
        self._trace_id = f"{chance.getrandbits(128):032x}"
        self._number = number
        self._task = Task(id=f"{question.id}-{number}", prompt=question.text, reference=None, family=FAMILY)

    def spans(self) -> Iterator[SpanRecord]:
        started, chance = self._now, self._chance
        root, boss = self._id(), self._id()
        yield from self._plan(boss)
        solved = True
        for place in range(chance.randint(3, 7)):
            ok = chance.random() < 0.9
            solved &= ok
            yield from self._worker(boss, place, ok)
        status = "ok" if solved else "failed"
        answer = json.dumps(self._question.answer, ensure_ascii=False)
        outcome = Outcome(task_id=self._task.id, trace_id=self._trace_id, status=status, answer=answer)
        own: dict[str, JsonValue] = {a.OPERATION: "invoke_agent", a.AGENT_NAME: "orchestrator", a.STATUS: status}
        yield self._span(boss, root, "invoke_agent orchestrator", started, own | {a.OUTPUT: json.dumps(answer)})
        whole: dict[str, JsonValue] = {a.OPERATION: "invoke_workflow", a.WORKFLOW_NAME: "crew", a.STATUS: status}
        whole[a.PURPOSE] = "service"
        texts: dict[str, JsonValue] = {a.TASK: self._task.model_dump_json(), a.OUTCOME: outcome.model_dump_json()}
        yield self._span(root, None, "invoke_workflow crew", started, whole | texts)

    def _plan(self, boss: str) -> Iterator[SpanRecord]:
        plan, started, reply = self._id(), self._now, self._plan_text
        yield self._chat(plan, "orchestrator", [PLAN_INSTRUCTIONS, self._question.text], reply)
        own: dict[str, JsonValue] = {a.OPERATION: "plan", a.AGENT_NAME: "orchestrator", a.PLAN: reply}
        yield self._span(plan, boss, "plan orchestrator", started, own)

    def _worker(self, boss: str, place: int, ok: bool) -> Iterator[SpanRecord]:
        chance, started = self._chance, self._now
        agent, own = chance.choice(WORKERS), self._id()
        fact = chance.choice(self._question.facts)
        other = chance.choice(self._facts)
        found = f"{fact.document}\n{other}"
        call = json.dumps({"facts": {"query": fact.text}}, ensure_ascii=False)
        first = self._chat(own, agent, [LOOKUP_INSTRUCTIONS, fact.text], call)
        yield first
        attributes: dict[str, JsonValue] = {
            a.OPERATION: "execute_tool",
            a.AGENT_NAME: agent,
            a.TOOL_NAME: "facts",
            a.TOOL_TYPE: "function",
            a.TOOL_CALL_ID: first.span_id,
            a.TOOL_CALL_ARGUMENTS: json.dumps({"query": fact.text}, ensure_ascii=False),
            a.TOOL_CALL_RESULT: write_result(found),
            a.TOOL_STATUS: "ok",
        }
        yield self._span(self._id(), own, "execute_tool facts", self._now, attributes)
        answer = json.dumps({"answer": fact.document.rsplit("\n", 1)[-1][-200:]}, ensure_ascii=False)
        yield self._chat(own, agent, [LOOKUP_INSTRUCTIONS, fact.text, call, f"facts: {found}"], answer)
        work: dict[str, JsonValue] = {
            a.OPERATION: "invoke_agent",
            a.AGENT_NAME: agent,
            a.ASSIGNMENT_ID: str(place),
            a.GOAL: fact.text,
            a.STATUS: "ok" if ok else "failed",
            a.OUTPUT: answer,
        }
        yield self._span(own, boss, f"invoke_agent {agent}", started, work)

    def _chat(self, parent: str, agent: str, texts: Sequence[str], reply: str) -> SpanRecord:
        roles = ("system", "user", "assistant", "user")
        prompt = [Message(role=role, content=text) for role, text in zip(roles, texts, strict=False)]
        prompt_ids, ids = (
            [one for text in texts for line in text.split("\n") for one in token_ids(line)],
            token_ids(reply),
        )
        policy, started = f"{agent}@{1 + self._number // 8000}", self._now
        self._now += 10_000_000 * len(ids)
        attributes: dict[str, JsonValue] = {
            a.OPERATION: "chat",
            a.PROVIDER: "vllm",
            a.AGENT_NAME: agent,
            a.REQUEST_MODEL: policy,
            a.REQUEST_MAX_TOKENS: 192,
            a.REQUEST_TEMPERATURE: 0.0,
            a.REQUEST_SEED: 0,
            a.ADAPTER_DIGEST: f"{crc32(policy.encode()):08x}" * 8,
            a.RESPONSE_ID: f"chatcmpl-{self._chance.getrandbits(128):032x}",
            a.RESPONSE_MODEL: policy,
            a.FINISH_REASONS: ["stop"],
            a.INPUT_TOKENS: len(prompt_ids),
            a.OUTPUT_TOKENS: len(ids),
            a.CACHED_TOKENS: len(prompt_ids) // 16 * 16,
            a.PROMPT_TOKEN_IDS: f"[{', '.join(prompt_ids)}]",
            a.TOKEN_IDS: f"[{', '.join(ids)}]",
            a.LOGPROBS: self._logprobs(len(ids)),
        }
        attributes |= prompt_attributes(prompt)
        attributes[a.OUTPUT_MESSAGES] = reply_attribute(Message(role="assistant", content=reply), "stop")
        return self._span(self._id(), parent, f"chat {policy}", started, attributes, kind="client")

    def _logprobs(self, size: int) -> str:
        """As of a model that is mostly sure: from a ten-millionth to two nats."""
        numbers = -(10 ** self._noise.uniform(-7, 0.3, size))
        return as_json(numbers.astype(np.float32).astype(float).tolist())

    def _span(
        self,
        span_id: str,
        parent: str | None,
        name: str,
        started: int,
        attributes: dict[str, JsonValue],
        kind: str = "internal",
    ) -> SpanRecord:
        self._now += 1_000_000
        shared: dict[str, JsonValue] = {a.TASK_ID: self._task.id, a.TASK_FAMILY: FAMILY}
        return SpanRecord(
            trace_id=self._trace_id,
            span_id=span_id,
            parent_id=parent,
            name=name,
            kind=kind,
            start_ns=started,
            end_ns=self._now,
            status="error" if attributes.get(a.STATUS) == "failed" else "ok",
            attributes=attributes | shared,
        )

    def _id(self) -> str:
        return f"{self._chance.getrandbits(64):016x}"


@lru_cache(maxsize=50_000)
def token_ids(text: str) -> list[str]:
    """The same id for the same piece of a word, as a tokenizer gives."""
    return [str(crc32(piece.encode()) % VOCABULARY) for piece in _PIECE.findall(text)]
