"""Leaks are found whatever side they are on, and chance is no leak."""

from collections.abc import Mapping
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.leaks import Ties, find_leaks

NEAR = 0.7
SQL = "SELECT count(*) FROM albums WHERE artist = 'AC/DC'"
WORDS = st.lists(st.sampled_from(["how", "many", "moons", "has", "mars", "venus"]), min_size=1, max_size=7)
PROMPTS = st.lists(WORDS.map(" ".join), min_size=2, max_size=8)


def task(prompt: str, *, id: str = "q", reference: JsonValue = None, asks: JsonValue = None) -> Task:
    metadata: dict[str, JsonValue] = {} if asks is None else {"sub_questions": asks}
    return Task(id=id, prompt=prompt, reference=reference, metadata=metadata)


MARS = task("How many moons has Mars?")
PAIRS: Mapping[str, tuple[Task, Task]] = {
    "equal": (MARS, task("how many moons has MARS")),
    "near": (MARS, task("How many moon has Mars?")),
    "sub-question": (MARS, task("How many moons has Mars? And which of them is the larger one, by far?")),
    "reference": (task("How many albums?", reference=SQL), task(f"Explain this query, word by word: {SQL.lower()}")),
}
DECLARED = {
    "of both": (task("Compare Mars and Venus.", asks=["Moons of Mars?"]), task("Is it far?", asks=["moons of mars"])),
    "of one": (MARS, task("Compare Mars and Venus.", asks=["How many moons has Mars?"])),
    "in a prompt": (task("Do say: how many moons has Mars, o muse?"), task("Compare both.", asks=[MARS.prompt])),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_each_kind_of_leak_is_found_from_both_sides(kind: str) -> None:
    one, other = PAIRS[kind]
    for sets in ({"train": [one], "gate": [other]}, {"train": [other], "gate": [one]}):
        (leak,) = find_leaks(sets, NEAR)
        assert (leak.kind, leak.first.set, leak.second.set) == (kind, "train", "gate")
        assert (leak.similarity is None) == (kind != "near")


@pytest.mark.parametrize("where", DECLARED)
def test_sub_questions_that_somebody_wrote_down_are_compared(where: str) -> None:
    one, other = DECLARED[where]
    for sets in ({"train": [one], "gate": [other]}, {"train": [other], "gate": [one]}):
        assert [leak.kind for leak in find_leaks(sets, NEAR)] == ["sub-question"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MARS, task("How many moons has Jupiter by now?")),
        (task("Who won?", reference="Mars"), task("How far is Mars from here?")),
        (task("Who won?", reference=["University of Pennsylvania"]), task("Where is the University of Pennsylvania?")),
        (task("2 + 2"), task("What is 2 + 2 + 3 times 8, and why?")),
    ],
    ids=["another question", "a short reference", "a name in a list", "a short prompt"],
)
def test_what_stands_in_many_prompts_by_chance_is_no_leak(one: Task, other: Task) -> None:
    assert find_leaks({"train": [one], "gate": [other]}, NEAR) == []


def test_tasks_of_one_set_are_no_leak_and_the_gravest_come_first() -> None:
    sets = {"train": [MARS, MARS, task("How many moon has Mars?")], "gate": [MARS]}
    assert [leak.kind for leak in find_leaks(sets, NEAR)] == ["equal", "equal", "near"]


@settings(deadline=None)
@given(PROMPTS)
def test_a_tie_holds_both_ways(prompts: list[str]) -> None:
    tasks = [task(prompt) for prompt in prompts]
    tied = [Ties(tasks, NEAR).of(one) for one in tasks]
    for one, other in combinations(range(len(tasks)), 2):
        assert tied[one].get(other) == tied[other].get(one)
    assert all(tied[number][number].kind == "equal" for number in range(len(tasks)))


def test_sub_questions_that_are_no_list_of_texts_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"task 'q': metadata.sub_questions isn't a list of texts: write"):
        find_leaks({"train": [task("a", asks="b")], "gate": [MARS]}, NEAR)
