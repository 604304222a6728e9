"""A template gives tasks whose references are computed, and its own gold is put to the test first."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.traces.trace import Task
from journeyman.training.data.writing.drafts import RefusedError
from journeyman.training.data.writing.golds import CalculationGold, Gold, SqlGold
from journeyman.training.data.writing.templates import Template


def filled(task: Task, gold: Gold) -> dict[str, Any]:
    """References by prompt; None for what is refused."""
    template, tasks = Template(task, gold, seed=0), dict[str, Any]()
    for turn in range(len(template)):
        try:
            written = template.filled(turn)
        except RefusedError:
            continue
        tasks[written.prompt] = written.reference
    return tasks


def test_values_come_from_the_column_that_the_query_compares(shop: Path, queen: Task) -> None:
    assert filled(queen, SqlGold(shop)) == {
        "How many albums has Abba?": "1",
        "How many albums has Nena?": "1",
        "How many albums has The O'Jays?": "0",
    }


def test_the_query_of_a_filled_task_gives_its_reference(shop: Path, queen: Task) -> None:
    template, gold = Template(queen, SqlGold(shop), seed=0), SqlGold(shop)
    written = next(task for turn in range(3) if "O'Jays" in (task := template.filled(turn)).prompt)
    assert "artist.name = 'The O''Jays'" in str(written.metadata["sql"])
    assert str(gold.result(str(written.metadata["sql"]))) == written.reference


def test_a_number_and_a_name_change_together(shop: Path) -> None:
    query = "SELECT title FROM album JOIN artist a ON a.id = artist WHERE a.name = 'Queen' AND year > 1980"
    task = Task(id="t", prompt="Which albums of Queen came after 1980?", reference=["Hot Space"])
    values: Any = {"Queen": ["Nena", "Abba"], "1980": "SELECT DISTINCT year FROM album"}
    tasks = filled(task.model_copy(update={"metadata": {"sql": query, "values": values}}), SqlGold(shop))
    assert tasks["Which albums of Nena came after 1976?"] == ["Nena"]
    assert "Which albums of Abba came after 1983?" not in tasks, "it has none"
    assert len(tasks) == 3


def test_a_value_that_names_another_slot_is_not_filled_twice(shop: Path) -> None:
    query = "SELECT count(*) FROM artist WHERE name IN ('Queen', 'Abba')"
    task = Task(
        id="t", prompt="Queen or Abba?", metadata={"sql": query, "values": {"Queen": ["Abba"], "Abba": ["Nena"]}}
    )
    assert filled(task, SqlGold(shop)) == {"Abba or Nena?": 2}


def test_a_calculation_takes_the_numbers_that_are_named() -> None:
    values: Any = {"3": [5], "4": [6, 7]}
    task = Task(id="t", prompt="3 boxes of 4 eggs?", reference=12, metadata={"calculation": "3 * 4", "values": values})
    assert filled(task, CalculationGold()) == {"5 boxes of 6 eggs?": 30, "5 boxes of 7 eggs?": 35}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"metadata": {}}, "it has no `sql` in its metadata"),
        ({"reference": "3"}, r"its `sql` doesn't give its reference: 2: SELECT"),
        ({"prompt": "How many albums?"}, "no value of its `sql` stands in its prompt"),
        ({"metadata": {"sql": "SELECT 1 FROM nowhere"}}, "its query fails"),
        ({"metadata": {"sql": "DELETE FROM album"}}, "its query fails"),
        ({"metadata": {"sql": "SELECT title FROM album WHERE year = 1066"}}, "its query gives nothing"),
        ({"values": ["Abba"]}, "its metadata.values is no object"),
        ({"values": {"Queen": []}}, "its metadata.values gives no other value: Queen"),
        ({"values": {"Queen": ["Queen"]}}, "its metadata.values gives no other value: Queen"),
        ({"values": {"Blur": ["Abba"]}}, "a text of metadata.values isn't in its prompt and its `sql`: Blur"),
        ({"values": {"albums": ["songs"]}}, "a text of metadata.values isn't in its prompt and its `sql`: albums"),
        ({"values": {"Queen": "SELECT nothing FROM artist"}}, "its query fails"),
    ],
    ids=str,
)
def test_what_is_no_template_says_why(shop: Path, queen: Task, values: dict[str, Any], told: str) -> None:
    if "values" in values:
        values = {"metadata": {**queen.metadata, **values}}
    with pytest.raises(RefusedError, match=told):
        Template(queen.model_copy(update=values), SqlGold(shop), seed=0)


def test_a_text_never_goes_into_a_query_as_code(shop: Path) -> None:
    values: Any = {"1980": ["1 OR 1 = 1", "1982"]}
    metadata: Any = {"sql": "SELECT count(*) FROM album WHERE year = 1980", "values": values}
    assert filled(Task(id="t", prompt="How many in 1980?", metadata=metadata), SqlGold(shop)) == {
        "How many in 1982?": 1
    }
    values = {"Queen": ["x' OR '1' = '1", "Nena"]}
    metadata = {"sql": "SELECT count(*) FROM artist WHERE name = 'Queen'", "values": values}
    tasks = filled(Task(id="t", prompt="How many Queen?", metadata=metadata), SqlGold(shop))
    assert tasks == {"How many x' OR '1' = '1?": 0, "How many Nena?": 1}
