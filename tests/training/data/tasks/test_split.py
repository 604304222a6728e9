"""A split is fixed: no order, no machine and no later task moves what has its set."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.leaks import find_leaks
from journeyman.training.data.tasks.near import plain
from journeyman.training.data.tasks.split import Split, divide, write_split

NAMES = ("train", "gate", "test", "vault")
THINGS = ["albums", "customers", "invoices", "tracks", "artists", "genres", "playlists", "employees", "countries"]
ASKED = ["Which {} are there in the south of France?", "Name ten {}.", "Who looks after all our {}?", "Drop the {}!"]


def task(number: int, **values: Any) -> Task:
    thing, asked = THINGS[number % 9], ASKED[number // 9 % 4]
    prompt = f"{asked.format(thing)} {' '.join(str(number * 7919)) if number > 35 else ''}"
    return Task(**{"id": f"q{number}", "prompt": prompt.strip(), "metadata": {"db": f"d{number % 40}"}} | values)


TASKS = [task(number) for number in range(120)]
BY_DB = Split(by="db")


def numbered(tasks: list[Task]) -> dict[int, Task]:
    return dict(enumerate(tasks, 1))


def sets_of(tasks: list[Task], split: Split, earlier: Any = None) -> dict[str, str]:
    """Each task's set."""
    division = divide(numbered(tasks), split, earlier)
    return {task.id: name for name, members in division.sets.items() for task in members}


def write(path: Path, tasks: list[Task]) -> Path:
    path.write_text("".join(task.model_dump_json(exclude_unset=True) + "\n" for task in tasks))
    return path


def read(folder: Path) -> dict[str, list[str]]:
    """Ids by set."""
    rows = {name: (folder / f"q.{name}.jsonl").read_text().splitlines() for name in NAMES}
    return {name: [json.loads(row)["id"] for row in lines] for name, lines in rows.items()}


def test_every_task_falls_to_one_set_and_a_group_to_the_same() -> None:
    sets = sets_of(TASKS, BY_DB)
    assert sorted(sets) == sorted(task.id for task in TASKS) and set(sets.values()) == set(NAMES)
    assert all(sets[f"q{number}"] == sets[f"q{number + 40}"] == sets[f"q{number + 80}"] for number in range(40))


def test_the_sets_are_those_that_were_written_down_once() -> None:
    keys = ["chinook", "world", "sakila", "northwind", "Zürich"]
    assert [Split().set_of(key) for key in keys] == ["test", "gate", "test", "train", "train"]


@settings(deadline=None)
@given(st.permutations(range(60)), st.integers(min_value=50, max_value=60))
def test_neither_order_nor_other_tasks_play_a_part(order: list[int], some: int) -> None:
    halves = Split(by="db", shares={"train": 1, "gate": 1})  # Of four sets the smallest could come out empty.
    everything = sets_of(TASKS[:60], halves)
    part = sets_of([TASKS[number] for number in order[:some]], halves)
    assert part == {id: everything[id] for id in part}


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(60)))
def test_groups_of_near_duplicates_are_the_same_in_any_order(order: list[int]) -> None:
    assert sets_of([TASKS[number] for number in order], Split()) == sets_of(TASKS[:60], Split())


@settings(deadline=None, max_examples=20)
@given(st.integers(min_value=20, max_value=119))
def test_a_later_task_moves_none_of_the_near_duplicates(first: int) -> None:
    split = Split(shares={"train": 1, "gate": 1})
    before = divide(numbered(TASKS[:first]), split)
    fixed = {plain(task.prompt): {name} for name, members in before.sets.items() for task in members}
    after = sets_of(TASKS, split, fixed)
    assert all(after[task.id] == name for name, members in before.sets.items() for task in members)


def test_near_duplicates_share_nothing_across_sets() -> None:
    doubled = [
        *TASKS,
        *(task(number, id=f"p{number}", prompt=f"{TASKS[number].prompt} Thanks") for number in range(90)),
    ]
    division = divide(numbered(doubled), Split())
    assert find_leaks(dict(division.sets.items()), 0.7) == []
    assert sum(map(len, division.sets.values())) == len(doubled)


def test_a_task_that_ties_two_sets_is_left_out() -> None:
    one, other = task(0, prompt="How many moons has Mars, our neighbour?"), task(1, prompt="Where is Venus at seven?")
    bridge = task(2, prompt="How many moons has Mars, our neighbour? Where is Venus at seven?")
    fixed = {plain(one.prompt): {"train"}, plain(other.prompt): {"gate"}}
    split = Split(shares={"train": 1, "gate": 1})
    division = divide(numbered([bridge, one, other]), split, fixed)  # type: ignore[arg-type]
    assert division.left_out == [bridge]
    assert division.sets == {"train": [one], "gate": [other]}


def test_another_process_with_another_hash_seed_makes_the_same_sets(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", TASKS)
    for seed in ("1", "2"):
        code = "import sys; from pathlib import Path\n"
        code += "from journeyman.training.data.tasks.split import Split, write_split\n"
        code += "write_split(Path(sys.argv[1]), Path(sys.argv[2]), Split())"
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, path, tmp_path / seed], check=True, env=environment)
    write_split(write(tmp_path / "q.jsonl", TASKS[::-1]), tmp_path / "3", Split())
    for name in NAMES:
        texts = [(tmp_path / folder / f"q.{name}.jsonl").read_bytes() for folder in "123"]
        assert texts[0] == texts[1] == texts[2]


def test_shares_are_kept_and_a_set_without_one_is_not_made(tmp_path: Path) -> None:
    split = Split(by="id", shares={"train": 3, "gate": 1})
    tasks = [Task(id=f"{number}", prompt=f"{number}") for number in range(2000)]
    division = divide(numbered(tasks), split)
    assert list(division.sets) == ["train", "gate"]
    assert 1430 < len(division.sets["train"]) < 1570


@pytest.mark.parametrize("field", ["id", "family", "reference", "session", "user", "db"])
def test_groups_go_by_a_field_of_the_task_or_of_its_metadata(field: str) -> None:
    rows = [
        task(n, family=f"f{n % 9}", reference=f"r{n % 30}", session=f"s{n % 30}", user=f"u{n % 30}") for n in range(120)
    ]
    division = divide(numbered(rows), Split(by=field, salt="5", shares={"train": 1, "gate": 1}))
    assert sum(division.groups.values()) == {"id": 120, "family": 9, "db": 40}.get(field, 30)


@pytest.mark.parametrize(("field", "bare"), [("db", {"metadata": {}}), ("user", {}), ("db", {"metadata": {"db": ""}})])
def test_a_missing_group_key_is_told_with_its_lines(field: str, bare: dict[str, Any]) -> None:
    rows = [task(0, user="ada"), task(1, **bare), task(2, user="ada")]
    with pytest.raises(ConfigError, match=rf"1 of 3 tasks have no '{field}' to group by: give it to line 2, as a key"):
        divide(numbered(rows), Split(by=field))


def test_a_family_that_no_line_names_is_no_group() -> None:
    with pytest.raises(ConfigError, match=r"120 of 120 tasks have no 'family' .* lines 1, 2, 3, …"):
        divide(numbered(TASKS), Split(by="family"))


def test_a_split_that_leaves_a_set_empty_writes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", TASKS[:3])
    with pytest.raises(
        ConfigError, match=r"no task falls to .*vault: 3 groups by 'db' are too few .*; try another --by"
    ):
        write_split(path, tmp_path / "sets", BY_DB)
    assert not (tmp_path / "sets").exists()


def test_a_file_that_grew_makes_the_sets_grow(tmp_path: Path) -> None:
    for split, folder in ((BY_DB, tmp_path / "db"), (Split(), tmp_path / "near")):
        write_split(write(tmp_path / "q.jsonl", TASKS[:100]), folder, split)
        before = read(folder)
        write_split(write(tmp_path / "q.jsonl", TASKS), folder, split)
        after = read(folder)
        assert all(set(before[name]) <= set(after[name]) for name in NAMES)
        assert sum(map(len, after.values())) == len(TASKS)


def test_a_corrected_reference_reaches_the_set(tmp_path: Path) -> None:
    write_split(write(tmp_path / "q.jsonl", TASKS), tmp_path, BY_DB)
    write_split(write(tmp_path / "q.jsonl", [task(0, reference="42"), *TASKS[1:]]), tmp_path, BY_DB)
    assert sum('"reference":"42"' in path.read_text() for path in tmp_path.glob("q.*.jsonl")) == 1


@pytest.mark.parametrize("other", [{"salt": "a"}, {"by": "id"}, {"by": None}, {"shares": {"train": 1, "gate": 1}}])
def test_a_different_earlier_split_is_never_overwritten(tmp_path: Path, other: dict[str, Any]) -> None:
    path = write(tmp_path / "q.jsonl", TASKS)
    write_split(path, tmp_path, BY_DB)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"has another split of these tasks \(.* was .*\): ask for that, or name"):
        write_split(path, tmp_path, Split.model_validate(BY_DB.model_dump() | other))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_sets_of_somebody_else_are_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", TASKS)
    write(tmp_path / "q.gate.jsonl", TASKS[:2])
    with pytest.raises(ConfigError, match=r"q\.gate\.jsonl is there, and no split of .*: move it away"):
        write_split(path, tmp_path, BY_DB)
    (tmp_path / "q.split.json").write_text("{}}")
    with pytest.raises(ConfigError, match=r"q\.split\.json isn't the record of a split: move it away"):
        write_split(path, tmp_path, BY_DB)


def test_a_task_that_the_file_lost_or_that_changed_its_group_is_named(tmp_path: Path) -> None:
    write_split(write(tmp_path / "q.jsonl", TASKS), tmp_path, BY_DB)
    with pytest.raises(ConfigError, match=r"lacks 'q7', which .* has: a split only grows; put the task back"):
        write_split(write(tmp_path / "q.jsonl", [*TASKS[:7], *TASKS[8:]]), tmp_path, BY_DB)
    home = BY_DB.set_of('"d7"')
    other = next(f"d{number}" for number in range(40) if BY_DB.set_of(f'"d{number}"') != home)
    moved = [*TASKS[:7], task(7, metadata={"db": other}), *TASKS[8:]]
    with pytest.raises(ConfigError, match=rf"'q7' would move from {home} to .*: give it back the group"):
        write_split(write(tmp_path / "q.jsonl", moved), tmp_path, BY_DB)


def test_a_split_that_a_kill_cut_short_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", TASKS)
    whole = write_split(path, tmp_path, Split())
    texts = {each.path: each.path.read_bytes() for each in whole.sets.values()}
    for name in ("train", "gate"):  # The last ones to be written.
        (tmp_path / f"q.{name}.jsonl").unlink()
    assert write_split(path, tmp_path, Split()) == whole
    assert {path: path.read_bytes() for path in texts} == texts


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", TASKS)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"the sets in .*file were not all written: .*; make room"):
        write_split(path, tmp_path / "file", BY_DB)


def test_equal_prompts_of_two_groups_stay_where_they_are(tmp_path: Path) -> None:
    tasks = [*TASKS, *(task(0, id=f"again{number}", metadata={"db": f"d{number}"}) for number in range(1, 12))]
    path = write(tmp_path / "q.jsonl", tasks)
    write_split(path, tmp_path, BY_DB)
    before = read(tmp_path)
    assert len({name for name, ids in before.items() for one in ids if one.startswith("again")}) > 1
    write_split(path, tmp_path, BY_DB)
    assert read(tmp_path) == before
