"""Lineage: from adapters to the spans they learned from, and from spans to what came of them."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from journeyman.runtime.adapters.adapter import RECORD, Adapter
from journeyman.runtime.adapters.lineage import AdapterLineage, RecordLineage, RowLineage, trace_lineage, uses
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.errors import AdapterError, ConfigError, StoreError
from journeyman.traces.labels import Label
from journeyman.traces.tombstones import Tombstones

MakeAdapter = Callable[..., Path]


class Farm:
    """Runs, datasets and adapters that were made from each other."""

    def __init__(self, workspace: Workspace, make_adapter: MakeAdapter) -> None:
        self.workspace = workspace
        self._make_adapter = make_adapter
        workspace.datasets.mkdir()

    def run(self, *, policy: str = "teacher", calls: int = 1) -> tuple[str, list[str]]:
        """Ids of the trace and of its model calls."""
        span_ids = []
        with Recording(self.workspace) as recording:
            with recording.tracer.span("run", parent=None, attributes={a.OPERATION: "invoke_workflow"}) as run:
                for _ in range(calls):
                    attributes = {a.OPERATION: "chat", a.REQUEST_MODEL: policy}
                    with recording.tracer.span("chat", parent=run, attributes=attributes) as span:
                        span_ids.append(span.span_id)
            recording.label(Label(trace_id=run.trace_id, name="score", source="test", value=1.0))
        return run.trace_id, span_ids

    def dataset(self, name: str, *rows: tuple[str, list[str]], policy: str = "teacher", **more: object) -> str:
        named = {"policy": policy, **more}
        lines = [json.dumps({"trace_id": trace, "span_ids": spans, **named}) for trace, spans in rows]
        contents = "".join(line + "\n" for line in lines).encode()
        (self.workspace.datasets / name).write_bytes(contents)
        return sha256(contents).hexdigest()

    def adapter(self, policy: str, dataset: str, parent: str = "base", start: str = "base") -> None:
        path = self._make_adapter(policy) / RECORD
        adapter = Adapter.model_validate_json(path.read_bytes())
        more = {"dataset_digest": dataset, "parent": parent, "start": start}
        path.write_text(adapter.model_copy(update=more).model_dump_json())

    def of_adapter(self, name: str) -> AdapterLineage:
        found = trace_lineage(self.workspace, name)
        assert isinstance(found, AdapterLineage)
        return found

    def of_record(self, name: str) -> RecordLineage:
        found = trace_lineage(self.workspace, name)
        assert isinstance(found, RecordLineage)
        return found


@pytest.fixture
def farm(workspace: Workspace, make_adapter: MakeAdapter) -> Farm:
    return Farm(workspace, make_adapter)


def test_an_adapter_names_its_dataset_runs_spans_and_labels(farm: Farm) -> None:
    one, (first, second) = farm.run(calls=2)
    two, (third,) = farm.run()
    digest = farm.dataset("rows.jsonl", (one, [first]), (one, [second, third]))
    farm.adapter("worker@1", digest)
    found = farm.of_adapter("worker@1")
    assert found.datasets == (farm.workspace.datasets / "rows.jsonl",)
    assert (found.adapter.recipe_digest, found.parents, found.spans) == ("e" * 64, ("base",), 3)
    assert [(source.trace_id, source.span_ids, source.state) for source in found.sources] == [
        (one, (first, second), "recorded"),
        (two, (third,), "recorded"),
    ]
    assert [[(label.name, label.value) for label in source.labels] for source in found.sources] == [
        [("score", 1.0)]
    ] * 2


def test_runs_that_were_demonstrations_are_told_from_sampled_ones(farm: Farm) -> None:
    shown, sampled = farm.run(), farm.run(policy="worker@1")
    farm.adapter("worker@1", farm.dataset("shown.jsonl", shown))
    farm.adapter("worker@2", farm.dataset("sampled.jsonl", sampled, token_ids=[1, 2], prompt_token_ids=[3]))
    assert [source.demonstrations for source in farm.of_adapter("worker@1").sources] == [1]
    assert [source.demonstrations for source in farm.of_adapter("worker@2").sources] == [0]


def test_an_adapter_whose_dataset_was_overwritten_still_has_a_lineage(farm: Farm) -> None:
    farm.adapter("worker@1", farm.dataset("rows.jsonl", farm.run()))
    farm.dataset("rows.jsonl", farm.run())
    found = farm.of_adapter("worker@1")
    assert (found.datasets, found.sources) == ((), ())


def test_an_adapter_says_whose_weights_it_started_from_and_what_went_on_from_its_own(farm: Farm) -> None:
    digests = [farm.dataset(f"{number}.jsonl", farm.run()) for number in range(3)]
    farm.adapter("worker@1", digests[0])
    farm.adapter("worker@2", digests[1], start="worker@1")
    farm.adapter("worker@3", digests[2], start="worker@2")
    assert farm.of_adapter("worker@3").starts == ("worker@2", "worker@1", "base")
    assert farm.of_adapter("worker@3").parents == ("base",)
    (child,) = farm.of_adapter("worker@1").children
    (grandchild,) = child.children
    assert (child.policy, child.how, grandchild.policy) == ("worker@2", "trained from its weights", "worker@3")


def test_parents_and_children_go_all_the_way(farm: Farm) -> None:
    digests = [farm.dataset(f"{number}.jsonl", farm.run()) for number in range(3)]
    farm.adapter("worker@1", digests[0])
    farm.adapter("worker@2", digests[1], parent="worker@1")
    farm.adapter("worker@3", digests[2], parent="worker@2")
    assert farm.of_adapter("worker@3").parents == ("worker@2", "worker@1", "base")
    (child,) = farm.of_adapter("worker@1").children
    (grandchild,) = child.children
    assert (child.policy, child.how, grandchild.policy) == ("worker@2", "trained to replace it", "worker@3")


def test_an_adapter_that_learned_from_another_ones_replies_descends_from_it(farm: Farm) -> None:
    farm.adapter("worker@1", farm.dataset("taught.jsonl", farm.run()))
    farm.adapter("judge@1", farm.dataset("own.jsonl", farm.run(policy="worker@1"), policy="worker@1"))
    (child,) = farm.of_adapter("worker@1").children
    assert (child.policy, child.how) == ("judge@1", "trained on its replies")


def test_two_adapters_that_learned_from_each_other_do_not_go_round_for_ever(farm: Farm) -> None:
    farm.adapter("worker@1", farm.dataset("one.jsonl", farm.run(), policy="worker@2"), parent="worker@2")
    farm.adapter("worker@2", farm.dataset("two.jsonl", farm.run(), policy="worker@1"), parent="worker@1")
    (child,) = farm.of_adapter("worker@1").children
    assert (child.policy, child.children) == ("worker@2", ())
    assert len(farm.of_adapter("worker@1").parents) <= 3


def test_a_span_and_a_trace_lead_to_datasets_adapters_and_their_children(farm: Farm) -> None:
    trace_id, (first, second) = farm.run(calls=2)
    farm.adapter("worker@1", farm.dataset("rows.jsonl", (trace_id, [first]), farm.run(), (trace_id, [second])))
    farm.adapter("worker@2", farm.dataset("others.jsonl", farm.run()), parent="worker@1")
    for name, rows in ((trace_id, 2), (trace_id[:10], 2), (second, 1)):
        found = farm.of_record(name)
        assert (found.trace_id, found.state) == (trace_id, "recorded")
        (use,) = found.datasets
        assert (use.path.name, use.rows) == ("rows.jsonl", rows)
        assert [(one.policy, [child.policy for child in one.children]) for one in use.adapters] == [
            ("worker@1", ["worker@2"])
        ]
    assert farm.of_record(first).span_id == first


def test_a_row_that_several_runs_gave_is_found_from_each(farm: Farm) -> None:
    one, (first,) = farm.run()
    two, (second,) = farm.run()
    farm.dataset("rows.jsonl", (one, [first, second]))
    assert [use.rows for use in farm.of_record(two).datasets] == [1]
    assert [use.rows for use in uses(farm.workspace, [], [second])] == [1]
    assert uses(farm.workspace, [], ["f" * 16]) == ()


def test_deleted_runs_show_as_deleted(farm: Farm) -> None:
    trace_id, (span_id,) = farm.run()
    farm.adapter("worker@1", farm.dataset("rows.jsonl", (trace_id, [span_id]), ("a" * 32, ["b" * 16])))
    Tombstones(farm.workspace.spans).add([trace_id], reason="by trace")
    states = {source.trace_id: source.state for source in farm.of_adapter("worker@1").sources}
    assert states == {trace_id: "deleted", "a" * 32: "unknown"}
    assert [farm.of_record(name).state for name in (trace_id, span_id, "b" * 16)] == ["deleted", "deleted", "unknown"]
    assert [use.path.name for use in farm.of_record(trace_id).datasets] == ["rows.jsonl"]


def test_a_row_leads_to_its_spans_and_adapters_and_they_lead_back(farm: Farm) -> None:
    one, (first, second) = farm.run(calls=2)
    digest = farm.dataset("rows.jsonl", farm.run(), (one, [first, second]))
    farm.adapter("worker@1", digest)
    for name in ("rows.jsonl:2", f"{digest[:8]}:2", f"{farm.workspace.datasets / 'rows.jsonl'}:2"):
        found = trace_lineage(farm.workspace, name)
        assert isinstance(found, RowLineage)
        assert [(source.trace_id, source.span_ids) for source in found.sources] == [(one, (first, second))]
        assert [adapter.policy for adapter in found.adapters] == ["worker@1"]
    assert [use.numbers for use in farm.of_record(second).datasets] == [(2,)]
    with pytest.raises(StoreError, match="has no row 3"):
        trace_lineage(farm.workspace, "rows.jsonl:3")
    with pytest.raises(ConfigError, match="there is no dataset 'other'"):
        trace_lineage(farm.workspace, "other:3")


def test_both_sides_of_a_pair_lead_to_their_spans_and_taint_what_learned_from_them(farm: Farm) -> None:
    (one, chosen), (two, rejected) = farm.run(), farm.run(policy="worker@1")
    better = {"trace_id": one, "span_ids": chosen, "policy": "person"}
    worse = {"trace_id": two, "span_ids": rejected, "policy": "worker@1", "token_ids": [1]}
    farm.adapter("worker@1", farm.dataset("first.jsonl", farm.run()))
    spans = [*chosen, *rejected]
    digest = farm.dataset("pairs.jsonl", (one, spans), kind="preference", chosen=better, rejected=worse)
    farm.adapter("worker@2", digest)
    found = farm.of_adapter("worker@2")
    assert [(source.trace_id, source.span_ids, source.demonstrations) for source in found.sources] == [
        (one, tuple(chosen), 1),
        (two, tuple(rejected), 0),
    ]
    for trace_id, span_ids in ((one, chosen), (two, rejected)):
        (use,) = uses(farm.workspace, [trace_id], span_ids)
        assert (use.path.name, use.rows, [adapter.policy for adapter in use.adapters]) == (
            "pairs.jsonl",
            1,
            ["worker@2"],
        )
    (child,) = farm.of_adapter("worker@1").children
    assert (child.policy, child.how) == ("worker@2", "trained on its replies")


@pytest.mark.parametrize(("kind", "demonstrations"), [("kto", 1), ("prompts", 0)])
def test_rows_of_one_reply_or_none_lead_to_their_spans(farm: Farm, kind: str, demonstrations: int) -> None:
    trace_id, spans = farm.run()
    farm.adapter("worker@1", farm.dataset("rows.jsonl", (trace_id, spans), kind=kind))
    (source,) = farm.of_adapter("worker@1").sources
    assert (source.trace_id, source.span_ids, source.demonstrations) == (trace_id, tuple(spans), demonstrations)
    assert [use.rows for use in farm.of_record(spans[0]).datasets] == [1]


def test_documents_come_from_no_run(farm: Farm) -> None:
    path = farm.workspace.datasets / "texts.jsonl"
    path.write_text('{"kind": "documents", "sources": ["a.md"], "text": "Long ago."}\n')
    farm.adapter("worker@1", sha256(path.read_bytes()).hexdigest())
    found = farm.of_adapter("worker@1")
    assert (found.datasets, found.sources) == ((path,), ())


def test_a_name_of_nothing_is_an_error_that_says_so(farm: Farm) -> None:
    farm.run()
    with pytest.raises(AdapterError, match="no adapter worker@7"):
        farm.of_adapter("worker@7")
    with pytest.raises(StoreError, match="names neither an adapter"):
        farm.of_record("worker")
    with pytest.raises(StoreError, match="no trace or span 'feedfeedfeed'"):
        farm.of_record("feedfeedfeed")
    ids = [farm.run()[0] for _ in range(20)]
    shared = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    with pytest.raises(StoreError, match="traces and spans start with"):
        farm.of_record(shared)


def test_lines_that_are_no_rows_are_passed_over(farm: Farm) -> None:
    trace_id, spans = farm.run()
    farm.dataset("rows.jsonl", (trace_id, spans))
    path: Path = farm.workspace.datasets / "rows.jsonl"
    path.write_bytes(path.read_bytes() + b'[1]\n{"half":\n\xff\n')
    assert [use.rows for use in farm.of_record(trace_id).datasets] == [1]
