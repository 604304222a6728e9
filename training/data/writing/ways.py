"""Ways: how each way writes a task, and what the task has to pass before it is one."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from journeyman.traces.trace import Task
from journeyman.training.data.tasks.near import plain
from journeyman.training.data.writing.anchors import check_kept
from journeyman.training.data.writing.asking import TEXT, YES_NO, Asker
from journeyman.training.data.writing.checks import Checks, check_others
from journeyman.training.data.writing.drafts import ORIGIN, Attempt, RefusedError, TaskOrigin, Way
from journeyman.training.data.writing.golds import Gold, gives_away, same
from journeyman.training.data.writing.templates import Template

ASKED: Mapping[Way, str] = {
    "paraphrase": "Write this question in other words. It must ask for exactly the same. "
    "Keep each name, number and quoted text.\nQuestion: {0}",
    "harder": "Write a question like this one that is harder: it takes one more step to answer.\nQuestion: {0}",
    "easier": "Write a question like this one that is easier: it takes one step less to answer.\nQuestion: {0}",
    "documents": "Write a question that this text answers, to somebody who hasn't read it.\nText: {0}",
}
MEANS_THE_SAME = "Do these two ask for exactly the same, so that each answer to one answers the other?\n1. {0}\n2. {1}"
ANSWERED = "Answer the question, as shortly as you can.\nQuestion: {0}"

NUMBER = re.compile(r"\d+(?:\.\d+)?")

Clear = Callable[[Task, Way], None]
"""Raises `RefusedError` for a task that there is already, or that is held out."""


class Writer:
    """Writes one task an attempt."""

    def __init__(
        self,
        checks: Checks,
        clear: Clear,
        *,
        asker: Asker | None = None,
        terms: str | None = None,
        templates: Mapping[str, Template] | None = None,
        examples: Sequence[str] = (),
    ) -> None:
        """`templates` are those of `values` by the task's id; every other way needs an `asker`.

        `examples` are prompts that a question about a document is to be like.
        """
        self._checks = checks
        self._clear = clear
        self._asker = asker
        self._terms = terms
        self._templates = templates or {}
        self._examples = examples

    async def write(self, attempt: Attempt, key: str) -> Task:
        """The task, with its origin; raises `RefusedError`, and what asking raises."""
        draft, passed = await self._draft(attempt, key)
        self._clear(draft, attempt.way)
        if self._checks.others:
            await asyncio.to_thread(check_others, self._checks, draft)
            passed += self._checks.others
        told_before = gives_away(attempt.source.prompt, attempt.source.reference)
        if gives_away(draft.prompt, draft.reference) and not told_before:
            raise RefusedError("its prompt gives its reference away", str(draft.reference))
        passed += await self._opinions(attempt, draft, key)
        asker = None if attempt.way == "values" else self._asker
        origin = TaskOrigin(
            way=attempt.way,
            sources=(attempt.source.id,),
            policy=asker and asker.policy,
            terms=asker and self._terms,
            checks=tuple(passed),
            attempt=key,
        )
        update = {
            "id": f"{attempt.source.id}-{attempt.way}-{key[:8]}",
            "metadata": {**draft.metadata, ORIGIN: origin.model_dump(mode="json", exclude_none=True)},
        }
        return draft.model_copy(update=update)

    async def _draft(self, attempt: Attempt, key: str) -> tuple[Task, list[str]]:
        """What is written, and the names of what it has passed by being so."""
        source, gold = attempt.source, self._checks.gold
        match attempt.way:
            case "values":
                assert gold is not None
                return await asyncio.to_thread(self._templates[source.id].filled, attempt.turn), [gold.name]
            case "paraphrase":
                return await self._paraphrase(source, key)
        parts = self._answer_parts()
        told = f"\n{gold.told}" if gold else "\nWrite its answer too, as shortly as you can." if parts else ""
        text = ASKED[attempt.way].format(source.prompt)
        if attempt.way == "documents" and self._examples:
            text += f"\nIt reads like this one: {self._examples[int(key, 16) % len(self._examples)]}"
        said = await self._ask(text + told, {"question": TEXT, **parts}, key, 0)
        metadata = {gold.key: said[gold.key]} if gold else {}
        reference = await self._answer(said) if parts else None
        draft = Task(id="", prompt=said["question"], reference=reference, family=source.family, metadata=metadata)
        passed = [gold.name] if gold else []
        if attempt.way == "documents":
            if not gold and parts:
                _check_quoted(reference, source.prompt)
                passed.append("in the text")
        elif gold and isinstance(written := source.metadata.get(gold.key), str):
            easier, harder = (written, said[gold.key]) if attempt.way == "harder" else (said[gold.key], written)
            if _words(harder) <= _words(easier):
                raise RefusedError(f"it isn't {attempt.way} by its {gold.key}", f"{said[gold.key]}, beside {written}")
            passed.append(f"{attempt.way} by its {gold.key}")
        if gold and gold.key == "calculation":
            _check_numbers(draft.prompt, said[gold.key])
        return draft, passed

    async def _paraphrase(self, source: Task, key: str) -> tuple[Task, list[str]]:
        longest = {**TEXT, "maxLength": 2 * len(source.prompt) + 40}
        said = await self._ask(ASKED["paraphrase"].format(source.prompt), {"question": longest}, key, 0)
        check_kept(source.prompt, said["question"])
        passed, gold = ["names and numbers"], self._checks.gold
        if gold and isinstance(written := source.metadata.get(gold.key), str):
            if source.reference is not None and not same(await _result(gold, written), source.reference):
                raise RefusedError(f"its source's `{gold.key}` doesn't give its reference", written)
            passed.append(gold.name)
        return source.model_copy(update={"prompt": said["question"]}), passed

    def _answer_parts(self) -> dict[str, Mapping[str, Any]]:
        """What of a reply the reference comes from; nothing where nothing would check it."""
        if not self._checks.references:
            return {}
        if self._checks.gold:
            return {self._checks.gold.key: TEXT}
        answer = self._checks.answer
        # What points to a part of its own schema would point elsewhere within another.
        return {"answer": TEXT if answer is None else {} if "$ref" in str(answer) else answer}

    async def _answer(self, said: Mapping[str, Any]) -> JsonValue:
        gold = self._checks.gold
        answer: JsonValue = await _result(gold, said[gold.key]) if gold else said["answer"]
        return answer

    async def _opinions(self, attempt: Attempt, draft: Task, key: str) -> list[str]:
        if attempt.way == "values":
            return []
        # A paraphrase has no other witness of its meaning.
        times = self._checks.agree or int(attempt.way == "paraphrase")
        for number in range(1, times + 1):
            if attempt.way == "paraphrase":
                # The other way round each time: who says yes to what comes first is no witness.
                two = (attempt.source.prompt, draft.prompt)[:: 1 if number % 2 else -1]
                said = await self._ask(MEANS_THE_SAME.format(*two), {"same": YES_NO}, key, number)
                if not said["same"]:
                    raise RefusedError("the model says that it asks for something else", draft.prompt)
            elif not same(other := await self._second(attempt, draft, key, number), draft.reference):
                raise RefusedError("the model gave another answer", f"{other}, not {draft.reference}: {draft.prompt}")
        return [f"agree:{times}"] if times else []

    async def _second(self, attempt: Attempt, draft: Task, key: str, number: int) -> JsonValue:
        """What the model answers once more, who hasn't seen its first answer."""
        text = ANSWERED.format(draft.prompt)
        if self._checks.gold:
            text = f"Question: {draft.prompt}\n{self._checks.gold.told}"
        elif attempt.way == "documents":
            text += f"\nText: {attempt.source.prompt}"
        return await self._answer(await self._ask(text, self._answer_parts(), key, number))

    async def _ask(self, text: str, parts: Mapping[str, Mapping[str, Any]], key: str, number: int) -> dict[str, Any]:
        assert self._asker is not None
        return await self._asker.ask(text, parts, (int(key[:7], 16) + number) % 2**31)


async def _result(gold: Gold, written: str) -> JsonValue:
    return await asyncio.to_thread(gold.result, written)


def _check_quoted(reference: JsonValue, passage: str) -> None:
    if f" {plain(str(reference))} " not in f" {plain(passage)} ":
        raise RefusedError("its answer doesn't stand in the text", str(reference))


def _words(gold: str) -> int:
    """How much has to be written to compute an answer."""
    return len(re.findall(r"'(?:[^']|'')*'|[\w.]+|[^\w\s]", gold))


def _check_numbers(prompt: str, calculation: str) -> None:
    told = NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3})", "", prompt))
    if strange := [number for number in NUMBER.findall(calculation) if number not in told]:
        raise RefusedError("its calculation has numbers that its prompt doesn't tell", ", ".join(strange))
