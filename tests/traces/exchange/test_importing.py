"""Importing: the format is found by what a file holds, and a broken entry is named while the others come in."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from journeyman.traces.assemble import assemble, refusal
from journeyman.traces.capture.log import LogReader, SpanRecord
from journeyman.traces.errors import ConfigError
from journeyman.traces.exchange.conversation import Imported
from journeyman.traces.exchange.importing import Broken, Format, detect, read_file
from journeyman.traces.storage.columns import to_table

DATA = Path(__file__).parents[2] / "data" / "imports"
SPANS = DATA.parent / "spans"


def read(path: Path, format: Format | None = None) -> tuple[list[Imported], dict[str, str]]:
    found = list(read_file(path, format or detect(path), agent="assistant", family="default"))
    good = [entry for entry in found if isinstance(entry, Imported)]
    return good, {entry.where: entry.reason for entry in found if isinstance(entry, Broken)}


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("requests.jsonl", "chat"),
        ("finetune.jsonl", "chat"),
        ("langgraph.json", "chat"),
        ("langchain.json", "chat"),
        ("broken.jsonl", "chat"),
        ("collector.jsonl", "otlp"),
    ],
)
def test_the_format_is_what_the_file_holds(name: str, format: str) -> None:
    assert detect(DATA / name) == format


@pytest.mark.parametrize("text", ["", "\n", "Dear diary", '{"a": 1}', "[]", "7", '{"messages": "none"}', "\xff"])
def test_a_file_of_no_known_format_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="no format that is known"):
        detect(path)


def test_a_file_of_which_nothing_can_be_read_is_told_by_its_first_fault(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('[{"messages": [{"role": "user", "content": "a"}]},]')
    with pytest.raises(ConfigError, match=r"no format that is known .*; line 1: no JSON: Expecting value"):
        detect(path)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        detect(tmp_path / "none.jsonl")


def test_a_broken_line_is_named_and_the_others_come_in() -> None:
    good, broken = read(DATA / "broken.jsonl")
    assert [next(iter(entry.spans)).attributes["gen_ai.operation.name"] for entry in good] == ["invoke_workflow"] * 2
    assert list(broken) == ["line 2", "line 3", "line 4", "line 5", "line 6"]
    assert broken["line 2"].startswith("no JSON")
    assert broken["line 3"].startswith("nobody replies")


def test_a_first_line_that_is_broken_does_not_hide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = (DATA / "finetune.jsonl").read_text().splitlines()
    path.write_text("\n".join([lines[0][:50], *lines]))
    good, broken = read(path)
    assert (len(good), list(broken)) == (2, ["line 1"])


def test_a_list_of_conversations_is_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    talks = [json.loads(line) for line in (DATA / "finetune.jsonl").read_text().splitlines()]
    for indent in (None, 2):
        path.write_text(json.dumps([talks[0], {"messages": []}, talks[1]], indent=indent))
        good, broken = read(path)
        assert len(good) == 2
        assert [where.endswith("entry 2") for where in broken] == [True]


def test_spans_of_another_service_keep_what_it_said_of_itself() -> None:
    good, _ = read(DATA / "collector.jsonl")
    agent, chat = [span for entry in good for span in entry.spans]
    assert chat.parent_id == agent.span_id
    assert chat.attributes["gen_ai.usage.input_tokens"] == 61
    assert json.loads(str(chat.attributes["journeyman.otlp.resource"])) == {"service.name": "atlas"}


def test_another_programs_turns_can_be_learned_from() -> None:
    good, _ = read(DATA / "collector.jsonl")
    trace = assemble([span for entry in good for span in entry.spans])
    ((turn,),) = [trajectory.turns for trajectory in trace.trajectories]
    assert turn.response is not None and turn.response.content == "The Daugava."
    assert turn.policy == turn.served_by == "gpt-4o-mini-2024-07-18"
    assert refusal(turn, trace.trajectories[0]) is None
    assert next(iter(good[1].spans)).attributes["gen_ai.provider.name"] == "openai", "older names are translated"


def test_an_older_export_is_read_in_the_shapes_of_today(tmp_path: Path) -> None:
    older = [json.loads(line[9:]) for line in (SPANS / "learned.jsonl").read_text().splitlines()]
    assert older[0]["version"] == 1
    (tmp_path / "spans.jsonl").write_text("".join(json.dumps(span) + "\n" for span in older))
    good, _ = read(tmp_path / "spans.jsonl")
    assert [next(iter(entry.spans)) for entry in good] == [
        span for span in LogReader(SPANS) if span.trace_id == older[0]["trace_id"]
    ]


def test_a_span_that_is_none_is_named(tmp_path: Path, span: SpanRecord) -> None:
    path = tmp_path / "spans.jsonl"
    nameless = {key: value for key, value in span.model_dump().items() if key != "name"}
    path.write_text(f"{span.model_dump_json()}\n{json.dumps(nameless)}\n{span.model_dump_json()}\n")
    good, broken = read(path)
    assert [tuple(entry.spans) for entry in good] == [(span,), (span,)]
    assert broken == {"line 2": "no span: 'name' is missing"}


def test_a_forced_format_names_what_does_not_fit() -> None:
    good, broken = read(DATA / "finetune.jsonl", "otlp")
    assert (good, list(broken)) == ([], ["line 1", "line 2"])


def test_a_parquet_file_from_before_there_was_a_column_is_read(tmp_path: Path, span: SpanRecord) -> None:
    pq.write_table(to_table([span]).drop_columns(["decode_s", "unspeakable"]), tmp_path / "spans.parquet")
    good, _ = read(tmp_path / "spans.parquet")
    assert [tuple(entry.spans) for entry in good] == [(span,)]


def test_a_parquet_file_of_something_else_is_one_line(tmp_path: Path, span: SpanRecord) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ConfigError, match="no Parquet file of spans"):
        read(path)
    # As in a segment, whose large texts lie beside it.
    large = span.model_copy(update={"attributes": {"gen_ai.system_instructions": "x" * 1000}})
    pq.write_table(to_table([large], {}), path)
    with pytest.raises(ConfigError, match="large texts lie elsewhere"):
        read(path)
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ConfigError, match="no Parquet file of spans"):
        read(path)
