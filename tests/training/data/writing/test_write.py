"""Tasks are written from others, each checked; nothing that is held out gets in, and nothing is tried twice."""

import asyncio
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journeyman.agents.budget import Budget
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.traces.errors import ConfigError, ModelError, ServerError, StoreError
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.heldout import HeldOut
from journeyman.training.data.tasks.leaks import Ties
from journeyman.training.data.tasks.near import Texts, plain
from journeyman.training.data.tasks.sets import read_set
from journeyman.training.data.writing.write import open_tasks

Write = Any
ModelOf = Callable[[Callable[[str], dict[str, Any]]], ScriptedModel]

TITLES = ["Hot Space Jazz", "Arrival Waterloo", "Girls and Parklife", "Showbiz Origin", "Homework Discovery"]
TITLES += ["Debut Homogenic", "Autobahn Computer", "Hydra Africa", "Feuer und Flamme", "Vertical Goodnight"]
LIKE = [
    Task(id=f"q{n}", prompt=f"In which year was {title} sold first?", reference=1970 + n, metadata={"db": "shop"})
    for n, title in enumerate(TITLES)
]


def reworded(text: str) -> dict[str, Any]:
    """A model that is good at it, whatever it is asked for."""
    title = next((title for title in TITLES if title in text), "it")
    return {"question": f"What year did {title} come?", "same": True, "answer": "1970"}


async def test_a_paraphrase_keeps_reference_and_metadata_and_says_where_it_comes_from(
    write: Write, model_of: ModelOf
) -> None:
    written = await write(["paraphrase"], LIKE, model_of(reworded), wanted=4)
    assert (written.tasks, written.added, written.by_way, written.stopped) == (4, 4, {"paraphrase": 4}, None)
    sources = {task.id: task for task in LIKE}
    for task in write.tasks:
        origin = task.metadata["origin"]
        source = sources[origin["sources"][0]]
        assert (task.reference, task.family, task.metadata["db"]) == (source.reference, "default", "shop")
        assert source.prompt != task.prompt and task.id.startswith(f"{source.id}-paraphrase-")
        assert (origin["policy"], origin["checks"]) == ("base", ["names and numbers", "agree:1"])
    assert len(read_set(write.path)) == 4


async def test_what_a_provider_says_of_learning_from_its_output_goes_with_each_task(
    write: Write, model_of: ModelOf
) -> None:
    await write(["paraphrase"], LIKE, model_of(reworded), wanted=2, terms="not for training")
    assert [task.metadata["origin"]["terms"] for task in write.tasks] == ["not for training"] * 2


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"question": "What year did Moon come?"}, "loses a name, number or quoted text"),
        ({"question": "In which year did the UK's shops first sell {}?"}, "adds a name, number or quoted text"),
        ({"question": "Tell: in which year was {} sold first?"}, "it is its source, and more"),
        ({"question": "The shops had {} from 1970 on"}, "it asks nothing any more"),
        ({"question": "{}?"}, "far longer or shorter than its source"),
        ({"question": "In which year was {} first sold?"}, "near a task that there is already"),
        ({"question": "What year did {} come?", "same": False}, "the model says that it asks for"),
        ({"question": " "}, "the model's reply has another form"),
        ({"question": 3}, "the model's reply has another form"),
        ({}, "the model's reply has another form"),
        ({"question": "What year did {} \0 come?"}, "it holds what isn't text"),
        ({"question": "word " * 400}, "the model's reply was cut off"),
    ],
    ids=str,
)
async def test_what_is_no_paraphrase_is_counted_and_shown(
    write: Write, model_of: ModelOf, said: dict[str, Any], reason: str
) -> None:
    def answer(text: str) -> dict[str, Any]:
        title = next(title for title in TITLES if title in text)
        return {
            "same": True,
            **{key: part.format(title) if isinstance(part, str) else part for key, part in said.items()},
        }

    written = await write(["paraphrase"], LIKE, model_of(answer), most=10)
    ((told, times),) = written.refused.items()
    assert told.startswith(reason) and times == 10
    assert (written.tasks, written.stopped, write.path.read_bytes()) == (
        0,
        "10 attempts were made, as many as were to be",
        b"",
    )
    rows = [json.loads(row) for row in written.refusals.read_text().splitlines()]
    assert len(rows) == 10 and {row["detail"] for row in rows} >= {written.examples[told]}


BEGUN = st.sampled_from(
    ["Which year was it in that the shops first sold", "Who can tell us when we came by", "When was"]
)
MADE = st.lists(
    st.tuples(BEGUN, st.lists(st.sampled_from(["here", "there", "now", "ever"]), max_size=3), st.booleans()),
    min_size=12,
    max_size=12,
)
"""How a prompt begins, what else it says, and whether it is held out."""


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MADE, st.permutations(range(12)), st.sampled_from([1, 5]))
def test_no_written_task_is_tied_to_one_that_is_held_out(
    write: Write, model_of: ModelOf, made: list[tuple[str, list[str], bool]], order: list[int], concurrency: int
) -> None:
    """The model proposes held-out tasks, near ones and others; in any order no tied one gets in, nor two near ones."""
    prompts = [f"{begun} {TITLES[number % 3]} {' '.join(words)}?" for number, (begun, words, _) in enumerate(made)]
    held = [Task(id=f"h{n}", prompt=prompts[n]) for n, (*_, is_held) in enumerate(made) if is_held]
    proposed = (prompts[number] for number in order)
    like = [Task(id=f"s{n}", prompt=f"{'x' * n} something else altogether?") for n in range(3)]
    write.path.unlink(missing_ok=True)
    written = asyncio.run(
        write(
            ["harder"],
            like,
            model_of(lambda text: {"question": next(proposed)}),
            wanted=12,
            most=12,
            held_out=HeldOut({"gate": held}, 0.7),
            concurrency=concurrency,
        )
    )
    assert [task.prompt for task in write.tasks if Ties(held, 0.7).of(task)] == []
    texts = Texts(plain(task.prompt) for task in write.tasks)
    assert all(len([*texts.near(text, 0.7)]) == 1 for text in texts.texts)
    assert written.tasks + sum(written.refused.values()) == 12
    written.refusals.unlink(missing_ok=True)


async def test_nothing_is_written_from_what_is_held_out(write: Write, model_of: ModelOf) -> None:
    held_out = HeldOut({"gate": LIKE[:9]}, 0.7)
    await write(["paraphrase"], LIKE, model_of(reworded), held_out=held_out, most=3)
    assert {task.metadata["origin"]["sources"][0] for task in write.tasks} <= {"q9"}
    with pytest.raises(ConfigError, match=r"nothing to write paraphrase from: a task of gate \(10\)"):
        await write(["paraphrase"], LIKE, model_of(reworded), held_out=HeldOut({"gate": LIKE}, 0.7))


async def test_new_values_need_no_model_and_meet_no_held_out_task(shop: Path, write: Write, queen: Task) -> None:
    held_out = HeldOut({"test": [Task(id="t", prompt="How many albums has Abba?", reference="1")]}, 0.99)
    written = await write(["values"], [queen], checks=[f"sql:{shop}"], held_out=held_out)
    assert {task.prompt: task.reference for task in write.tasks} == {
        "How many albums has Nena?": "1",
        "How many albums has The O'Jays?": "0",
    }
    assert (written.refused, written.stopped) == ({"a task of test": 1}, "there is nothing more to write from")
    assert all("policy" not in task.metadata["origin"] for task in write.tasks)
    assert {tuple(task.metadata["origin"]["checks"]) for task in write.tasks} == {(f"sql:{shop}",)}


async def test_without_a_check_what_a_model_makes_up_has_no_reference(write: Write, model_of: ModelOf) -> None:
    written = await write(["easier", "harder"], LIKE, model_of(reworded), wanted=2)
    assert written.without_reference == 2
    assert [task.reference for task in write.tasks] == [None, None]


async def test_a_reference_is_what_the_models_query_gives(
    shop: Path, write: Write, model_of: ModelOf, queen: Task
) -> None:
    query = "SELECT title FROM album JOIN artist ON artist.id = artist WHERE name = 'Queen' ORDER BY year DESC LIMIT 1"
    model = model_of(lambda text: {"question": "What did Queen call the newest one?", "sql": query})
    await write(["harder"], [queen], model, wanted=1, checks=[f"sql:{shop}", "agree:2"])
    (task,) = write.tasks
    assert (task.reference, task.metadata["sql"]) == ("Hot Space", query)
    assert task.metadata["origin"]["checks"] == [f"sql:{shop}", "harder by its sql", "agree:2"]
    asked = [request.messages[0].content for request in model.requests]
    assert len(asked) == 3 and all("artist(id" in text for text in asked) and "Hot Space" not in "".join(asked)


@pytest.mark.parametrize(
    ("way", "query", "reason"),
    [
        ("harder", "DROP TABLE album", "its query fails"),
        ("harder", "SELECT title FROM album WHERE year = 1", "its query gives nothing"),
        ("harder", "SELECT a.title FROM album a, album b, album c, album d", "its query gives more than 50 rows"),
        ("harder", "SELECT count(*) FROM album", "it isn't harder by its sql"),
        (
            "easier",
            "SELECT 1 AS a, 2 AS b, 3 AS c, 4 AS d, 5 AS e, 6 AS f, 7 AS g, 8 AS h",
            "it isn't easier by its sql",
        ),
    ],
)
async def test_a_query_that_computes_nothing_gives_no_task(
    shop: Path, write: Write, model_of: ModelOf, queen: Task, way: str, query: str, reason: str
) -> None:
    model = model_of(lambda text: {"question": "What else is there to know of it?", "sql": query})
    written = await write([way], [queen], model, checks=[f"sql:{shop}"], most=1)
    assert written.tasks == 0 and next(iter(written.refused)).startswith(reason), written.refused


@pytest.mark.parametrize(
    ("question", "calculation", "reference"),
    [
        ("What do 5 crates of 12 eggs and 1,000 more make?", "5 * 12 + 1000", 1060),
        ("What do 5 crates of a dozen eggs make?", "5 * 12", None),
        ("What do 5 crates of 12 eggs make?", "5 * twelve", None),
    ],
)
async def test_a_calculation_is_made_of_numbers_that_the_prompt_tells(
    write: Write, model_of: ModelOf, question: str, calculation: str, reference: int | None
) -> None:
    model = model_of(lambda text: {"question": question, "calculation": calculation})
    await write(["easier"], LIKE, model, wanted=1, most=1, checks=["calculation"])
    assert [task.reference for task in write.tasks] == ([] if reference is None else [reference])


async def test_answers_that_do_not_agree_give_no_task(write: Write, model_of: ModelOf) -> None:
    answers = iter(["1970", "1970", "1971"])
    model = model_of(lambda text: {"question": "When was it that it came?", "answer": next(answers)})
    written = await write(["easier"], LIKE, model, wanted=1, most=1, checks=["agree:2"])
    assert (written.tasks, written.refused) == (0, {"the model gave another answer": 1})
    assert written.examples["the model gave another answer"].startswith("1971, not 1970")


@pytest.mark.parametrize(("answer", "tasks"), [("Phobos", 1), ("Titan", 0)])
async def test_an_answer_about_a_document_stands_in_it(
    write: Write, model_of: ModelOf, tmp_path: Path, answer: str, tasks: int
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "mars.md").write_text("# Moons\nThe larger moon of Mars is Phobos.")
    model = model_of(lambda text: {"question": "Which is the larger moon of Mars?", "answer": answer})
    documents = tmp_path / "docs"
    written = await write(["documents"], LIKE, model, wanted=1, most=1, checks=["agree:1"], documents=documents)
    assert written.tasks == tasks
    for task in write.tasks:
        assert (task.reference, task.metadata["origin"]["sources"]) == ("Phobos", ["docs#1"])
        assert task.metadata["origin"]["checks"] == ["in the text", "agree:1"]


async def test_a_prompt_that_tells_its_answer_is_refused(write: Write, model_of: ModelOf) -> None:
    model = model_of(lambda text: {"question": "Is Phobos the larger moon of Mars?", "answer": "Phobos"})
    written = await write(["easier"], LIKE, model, wanted=1, most=1, checks=["agree:1"])
    assert written.refused == {"its prompt gives its reference away": 1}


@pytest.mark.parametrize("concurrency", [1, 3, 8])
async def test_the_same_replies_give_the_same_file(
    write: Write, model_of: ModelOf, tmp_path: Path, concurrency: int
) -> None:
    await write(["paraphrase", "easier"], LIKE, model_of(reworded), wanted=6, concurrency=1)
    first, write.path = write.path.read_bytes(), tmp_path / "again.jsonl"
    await write(["paraphrase", "easier"], LIKE, model_of(reworded), wanted=6, concurrency=concurrency)
    assert write.path.read_bytes() == first


async def test_a_second_call_goes_on_and_tries_nothing_twice(write: Write, model_of: ModelOf) -> None:
    model = model_of(reworded)
    await write(["paraphrase"], LIKE, model_of(reworded), wanted=8)
    rows = write.path.read_bytes().splitlines(keepends=True)
    write.path.write_bytes(b"".join(rows[:5]) + rows[5][:40])  # As a kill leaves it.
    again = await write(["paraphrase"], LIKE, model, wanted=8)
    assert (again.tasks, again.added) == (8, 3)
    assert b"".join(rows) == write.path.read_bytes()
    assert len(model.requests) == 2 * 3
    done = model_of(reworded)
    assert (await write(["paraphrase"], LIKE, done, wanted=8)).added == 0
    assert done.requests == []


async def test_what_was_refused_is_not_asked_for_again_but_under_another_check(write: Write, model_of: ModelOf) -> None:
    no: Any = lambda text: {"question": "?", "same": False}  # noqa: E731
    await write(["paraphrase"], LIKE, model_of(no), most=10)
    again = model_of(no)
    written = await write(["paraphrase"], LIKE, again, most=10)
    assert (again.requests, sum(written.refused.values())) == ([], 10)
    await write(["paraphrase"], LIKE, again, most=10, checks=["agree:2"])
    assert len(again.requests) == 10


async def test_the_budget_ends_the_work_and_what_was_paid_for_stays(write: Write, model_of: ModelOf) -> None:
    model = model_of(reworded)
    written = await write(["paraphrase"], LIKE, model, wanted=9, budget=Budget(model_calls=7, reserve=0))
    assert len(model.requests) == 7
    assert 0 < written.tasks < 9 and written.over_budget
    assert written.stopped == "the budget of model calls is used up: 7 of 7 are spent"
    assert (await write(["paraphrase"], LIKE, model_of(reworded), wanted=9)).tasks == 9


@pytest.mark.parametrize(("kind", "status"), [("unreachable", None), ("refused", 401), ("server_error", 500)])
async def test_where_nobody_answers_the_work_ends_and_can_go_on(
    write: Write, model_of: ModelOf, kind: Any, status: int | None
) -> None:
    calls = count(1)

    def answer(text: str) -> dict[str, Any]:
        if next(calls) > 5:
            raise ModelError("it does not answer", kind=kind, status=status)
        return reworded(text)

    with pytest.raises(ServerError, match=r"it does not answer; [12] tasks are in .*: run the same command again"):
        await write(["paraphrase"], LIKE, model_of(answer), wanted=9)
    assert (await write(["paraphrase"], LIKE, model_of(reworded), wanted=9)).tasks == 9


async def test_a_request_that_is_refused_costs_that_attempt_alone(write: Write, model_of: ModelOf) -> None:
    calls = count(1)

    def answer(text: str) -> dict[str, Any]:
        if next(calls) == 1:
            raise ModelError("the prompt is too long", status=400)
        return reworded(text)

    written = await write(["paraphrase"], LIKE, model_of(answer), wanted=3)
    assert (written.tasks, written.refused["the model gave no reply"]) == (3, 1)


@pytest.mark.parametrize(
    "row", ['{"id": "q", "prompt": "Mine?"}', "[1]", "notes", '{"id": "q", "prompt": "x", "metadata": {"origin": 1}}']
)
@pytest.mark.parametrize("end", ["\n", ""])
async def test_a_file_of_somebody_else_is_left_alone(write: Write, model_of: ModelOf, row: str, end: str) -> None:
    write.path.write_text(row + end)
    with pytest.raises(
        ConfigError, match="holds something other than what `journeyman tasks write` wrote: name another"
    ):
        await write(["paraphrase"], LIKE, model_of(reworded))
    assert write.path.read_text() == row + end


async def test_two_processes_never_write_one_file(write: Write, model_of: ModelOf) -> None:
    with open_tasks(write.path), pytest.raises(ConfigError, match="another `journeyman tasks write` writes"):
        await write(["paraphrase"], LIKE, model_of(reworded))


@contextmanager
def full_after(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_disk_that_fills_takes_nothing_that_was_written(write: Write, model_of: ModelOf) -> None:
    with full_after(900), pytest.raises(StoreError, match=r"could not be written on: .*; make room, and run the same"):
        await write(["paraphrase"], LIKE, model_of(reworded), wanted=9)
    assert 0 < len(write.tasks) < 9
    assert (await write(["paraphrase"], LIKE, model_of(reworded), wanted=9)).tasks == 9
