"""`journeyman traces compact` and `doctor`: what they did and found, for people and for programs."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from journeyman.runtime.commands.traces.app import app
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import LogReader, SpanLog
from journeyman.traces.capture.texts import Texts
from journeyman.traces.errors import StoreError
from journeyman.traces.storage.columns import to_table
from journeyman.traces.storage.compact import sole_compactor
from journeyman.traces.storage.segments import Segments

SPANS = Path(__file__).parents[3] / "data" / "spans"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / ".journeyman"
    shutil.copytree(SPANS, place / "spans")
    return place


def traces(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "-C", str(root)], env={"COLUMNS": "100"})


def test_compact_says_what_it_did(root: Path) -> None:
    result = traces(root, "compact")
    assert result.exit_code == 0
    assert result.stdout.startswith("3 log files with ")
    assert "before" in result.stdout
    done = json.loads(traces(root, "compact", "--json").stdout)
    assert (done["files"], done["spans"], done["busy"]) == (0, 0, False)


def test_compacted_runs_are_listed_and_shown_as_before(root: Path) -> None:
    commands = (["list", "--json"], ["show", "aaaa", "--json"], ["show", "bbbb", "--json"])
    before = [traces(root, *command).stdout for command in commands]
    traces(root, "compact")
    assert list((root / "spans").glob("*.jsonl")) == []
    assert [traces(root, *command).stdout for command in commands] == before


def test_what_is_older_than_the_project_keeps_goes(root: Path) -> None:
    (root.parent / "journeyman.toml").write_text("[traces]\nkeep_days = 1\n")
    done = json.loads(traces(root, "compact", "--json").stdout)
    assert done["deleted"] == len(list(LogReader(SPANS)))
    assert done["bytes_after"] == 0
    assert traces(root, "list").stdout == ""


def test_a_second_compaction_says_that_one_is_at_work(root: Path) -> None:
    with sole_compactor(root / "spans"):
        assert "another compaction is at work" in traces(root, "compact").stdout


def test_segments_go_where_the_project_says(root: Path) -> None:
    (root.parent / "journeyman.toml").write_text('[traces]\nsegments = "elsewhere"\n')
    traces(root, "compact")
    assert len(Segments(root.parent / "elsewhere").paths()) == 1
    assert not (root / "spans" / "segments").exists()
    assert Workspace(root).segments == root.parent / "elsewhere"


def test_a_healthy_record_is_a_success(root: Path) -> None:
    result = traces(root, "doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{len(list(LogReader(SPANS)))} spans in 3 log files" in result.stdout
    assert traces(root.parent / "nothing", "doctor").exit_code == 0


def test_damage_is_told_with_exit_code_3_and_repaired(root: Path) -> None:
    segments = Segments(root / "spans")
    bad = segments.write(to_table(list(LogReader(SPANS)), segments.texts))
    content = bytearray(Path(bad).read_bytes())
    content[60] ^= 1
    Path(bad).write_bytes(content)
    Path(bad).with_name(".dead.parquet.partial").touch()
    found = traces(root, "doctor", "--json")
    assert found.exit_code == 3
    health = json.loads(found.stdout)
    assert list(health["corrupt"]) == [bad]
    assert health["damage"]["segments"] == 1
    assert len(health["partials"]) == 1
    assert f"corrupt: {bad}" in found.stderr
    repaired = traces(root, "doctor", "--repair", "--json")
    assert repaired.exit_code == 0
    health = json.loads(repaired.stdout)
    assert (health["aside"], health["corrupt"], health["partials"]) == (1, {}, [])
    assert "set aside" in health["repaired"][0]
    assert "1 files were set aside" in traces(root, "doctor").stdout


def test_a_torn_record_is_damage(root: Path) -> None:
    with (root / "spans" / "learned.jsonl").open("ab") as file:
        file.write(b"half a rec")
    result = traces(root, "doctor")
    assert result.exit_code == 3
    assert "damaged: 1 torn spans" in result.stderr


def test_texts_that_no_span_refers_to_are_told_and_removed(root: Path) -> None:
    orphan = Texts(root / "spans").keep("Nobody needs this. " * 30)
    assert json.loads(traces(root, "doctor", "--json").stdout)["orphans"] == [orphan]
    assert "1 texts that no span refers to" in traces(root, "doctor", "--repair").stdout
    assert orphan not in Texts(root / "spans")


def test_texts_stay_while_something_cannot_be_read(root: Path) -> None:
    orphan = Texts(root / "spans").keep("Somebody may need this. " * 30)
    (root / "spans" / "segments" / "day=2025-10-09").mkdir(parents=True)
    (root / "spans" / "segments" / "day=2025-10-09" / "1.parquet").write_bytes(b"PAR1")
    assert "1 files were set aside" in traces(root, "doctor", "--repair").stdout
    assert orphan in Texts(root / "spans")


def test_a_missing_text_is_damage(root: Path) -> None:
    spans = root / "spans"
    chat = next(iter(LogReader(SPANS)))
    long = chat.model_copy(update={"attributes": {**chat.attributes, a.SYSTEM_INSTRUCTIONS: "You plan. " * 99}})
    log = SpanLog(spans)
    log.append(long, sync=True)
    log.close()
    traces(root, "compact")
    for path in (spans / "texts").iterdir():
        path.unlink()
    result = traces(root, "doctor")
    assert result.exit_code == 3
    assert "missing texts" in result.stderr


def test_a_repair_does_not_meet_a_compaction(root: Path) -> None:
    with sole_compactor(root / "spans"):
        assert isinstance(traces(root, "doctor", "--repair").exception, StoreError)
