"""The promotion journal: compare-and-swap, crashes, and the states that follow from it."""

import json
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from journeyman.runtime.adapters.journal import BECOMES, NEXT, Action, Journal
from journeyman.traces.errors import AdapterError, StoreError


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


def add(journal: Journal, action: Action, policy: str, expected: str, agent: str = "worker") -> None:
    journal.append(agent, action, policy, expected=expected, digest="d" * 64, reason="test")


def test_an_agent_that_was_never_promoted_has_the_base_model(journal: Journal) -> None:
    assert journal.entries() == []
    assert journal.active() == {}
    assert journal.in_service("worker") == "base"
    assert journal.state("worker@1") == "candidate"


def test_a_promotion_retires_what_it_replaces(journal: Journal) -> None:
    add(journal, "promote", "worker@1", "base")
    add(journal, "promote", "worker@2", "worker@1")
    add(journal, "promote", "planner@1", "base", agent="planner")
    assert journal.active() == {"worker": "worker@2", "planner": "planner@1"}
    assert journal.states() == {"worker@1": "retired", "worker@2": "active", "planner@1": "active"}
    assert [entry.sequence for entry in journal.entries()] == [1, 2, 3]


def test_rollbacks_go_back_one_promotion_at_a_time_down_to_the_base(journal: Journal) -> None:
    add(journal, "promote", "worker@1", "base")
    add(journal, "promote", "worker@2", "worker@1")
    assert journal.replaced("worker") == "worker@1"
    add(journal, "rollback", "worker@1", "worker@2")
    assert journal.replaced("worker") == "base"
    add(journal, "rollback", "base", "worker@1")
    assert journal.in_service("worker") == "base"
    assert journal.states() == {"worker@1": "retired", "worker@2": "retired"}
    with pytest.raises(AdapterError, match="nothing to roll back"):
        journal.replaced("worker")


def test_a_rejection_changes_nothing_in_service_and_is_for_good(journal: Journal) -> None:
    add(journal, "promote", "worker@1", "base")
    add(journal, "reject", "worker@2", "worker@1")
    assert journal.in_service("worker") == "worker@1"
    assert journal.states() == {"worker@1": "active", "worker@2": "rejected"}
    with pytest.raises(AdapterError, match="worker@2 is rejected: it can't become active"):
        add(journal, "promote", "worker@2", "worker@1")


def test_an_entry_with_a_wrong_expectation_is_refused(journal: Journal) -> None:
    add(journal, "promote", "worker@1", "base")
    with pytest.raises(AdapterError, match="worker has worker@1 in service, not base"):
        add(journal, "promote", "worker@2", "base")
    assert len(journal.entries()) == 1


def test_an_adapter_serves_its_own_agent_only(journal: Journal) -> None:
    with pytest.raises(AdapterError, match="planner@1 is not an adapter of worker"):
        add(journal, "promote", "planner@1", "base")


def test_what_is_active_can_be_neither_promoted_again_nor_rejected(journal: Journal) -> None:
    add(journal, "promote", "worker@1", "base")
    for action in ("promote", "reject"):
        with pytest.raises(AdapterError, match="worker@1 is active"):
            add(journal, action, "worker@1", "worker@1")


def test_every_action_leads_to_a_state_of_the_table() -> None:
    assert set(BECOMES.values()) | {"candidate", "retired"} == set(NEXT)
    assert all(following <= set(NEXT) for following in NEXT.values())


def test_a_last_line_torn_by_a_crash_is_skipped_and_written_over(journal: Journal, tmp_path: Path) -> None:
    add(journal, "promote", "worker@1", "base")
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"version":1,"sequence":2,"agent":"wor')
    assert journal.active() == {"worker": "worker@1"}
    add(journal, "promote", "worker@2", "worker@1")
    assert [entry.policy for entry in journal.entries()] == ["worker@1", "worker@2"]


def test_damage_in_the_middle_is_an_error_that_names_the_line(journal: Journal, tmp_path: Path) -> None:
    add(journal, "promote", "worker@1", "base")
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write("rubbish\n")
    with pytest.raises(StoreError, match="line 2: damaged"):
        journal.active()


def test_a_journal_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        add(Journal(tmp_path / "file" / "journal.jsonl"), "promote", "worker@1", "base")


PROMOTE = """
import sys
from pathlib import Path
from journeyman.runtime.adapters.journal import Journal
from journeyman.traces.errors import AdapterError

path, policy = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
try:
    Journal(path).append("worker", "promote", policy, expected="base", digest="d", reason="test")
    print("won")
except AdapterError as error:
    print(error)
"""


def test_of_processes_that_promote_at_once_exactly_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    processes = {
        policy: Popen([sys.executable, "-c", PROMOTE, str(path), policy], stdin=PIPE, stdout=PIPE, text=True)
        for policy in ("worker@1", "worker@2", "worker@3", "worker@4")
    }
    for process in processes.values():
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {policy: process.communicate(timeout=60)[0] for policy, process in processes.items()}
    winners = [policy for policy, words in said.items() if words == "won\n"]
    assert len(winners) == 1
    assert Journal(path).active() == {"worker": winners[0]}
    assert len(Journal(path).entries()) == 1
    assert all(f"worker has {winners[0]} in service" in said[policy] for policy in said.keys() - winners)


def test_what_was_read_of_a_journal_is_not_read_again(journal: Journal, tmp_path: Path) -> None:
    path, writer = tmp_path / "journal.jsonl", Journal(tmp_path / "journal.jsonl")
    for number in (1, 2):
        add(writer, "promote", f"worker@{number}", f"worker@{number - 1}" if number > 1 else "base")
    assert len(journal.entries()) == 2
    add(writer, "promote", "worker@3", "worker@2")
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"?" * len(first) + b"\n" + rest)  # The same file, and the same where it was read up to.
    assert [entry.policy for entry in journal.entries()] == ["worker@1", "worker@2", "worker@3"]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_journal_that_was_cut_mended_or_restored_is_read_as_a_whole(
    journal: Journal, tmp_path: Path, in_place: bool
) -> None:
    path = tmp_path / "journal.jsonl"

    def put(contents: bytes) -> None:
        copy = path if in_place else tmp_path / "copy"
        copy.write_bytes(contents)
        copy.replace(path)

    add(journal, "promote", "worker@1", "base")
    one = path.read_bytes()
    add(journal, "promote", "worker@2", "worker@1")
    assert journal.active() == {"worker": "worker@2"}
    put(one)
    assert journal.active() == {"worker": "worker@1"}
    other = Journal(tmp_path / "other.jsonl")
    add(other, "promote", "worker@1", "base")
    add(other, "promote", "worker@22", "worker@1")
    add(other, "promote", "other@2", "base", agent="other")
    put((tmp_path / "other.jsonl").read_bytes())
    assert journal.active() == {"worker": "worker@22", "other": "other@2"}
    path.unlink()
    assert journal.active() == {}


def test_what_was_altered_left_out_or_moved_is_found(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for number in range(1, 4):
        add(journal, "promote", f"worker@{number}", f"worker@{number - 1}" if number > 1 else "base")
    one, two, three = path.read_bytes().splitlines(keepends=True)
    for wrong, line in (
        (one + two.replace(b'"reason":"test"', b'"reason":"fine"') + three, 2),
        (one + three, 2),
        (two + three, 1),
        (two + one + three, 1),
        (one + two.replace(b',"checksum":"', b',"x":"'), 2),
    ):
        path.write_bytes(wrong)
        with pytest.raises(StoreError, match=rf"journal.jsonl, line {line}: (altered|damaged)"):
            Journal(path).entries()


def test_lines_from_before_there_were_checksums_are_gone_on_with(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    add(journal, "promote", "worker@1", "base")
    old = json.loads(path.read_text()) | {"version": 1}
    del old["evidence"], old["checksum"]
    path.write_text(json.dumps(old) + "\n")
    add(journal, "promote", "worker@2", "worker@1")
    first, second = Journal(path).entries()
    assert (first.checksum, second.checksum is None) == (None, False)


def test_a_note_keeps_its_evidence_and_changes_nothing_in_service(journal: Journal) -> None:
    add(journal, "promote", "worker@1", "base")
    journal.append(
        "worker", "gate", "worker@2", expected="worker@1", digest="d" * 64, reason="better", evidence={"gain": 0.1}
    )
    assert journal.in_service("worker") == "worker@1"
    assert (journal.state("worker@2"), journal.states()) == ("candidate", {"worker@1": "active"})
    assert journal.entries()[-1].evidence == {"gain": 0.1}
