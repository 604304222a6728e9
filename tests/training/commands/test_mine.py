"""`journeyman mine` in a workspace in which crews were measured too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.errors import ConfigError
from journeyman.training.data.samples import SFTSample, read_samples

MakeAdapter = Callable[..., Path]


def test_nothing_that_a_gate_or_an_evaluation_asked_is_learned_from(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, workspace: Workspace
) -> None:
    make_adapter("worker@1")
    run("gate", "worker@1", *files, "--attach", url)
    run("evaluate", *files, "--attach", url, "--seed", "1")
    assert "made for gate (48), made for evaluation (24)" in str(run.error("mine", "--agent", "worker"))
    crew, service = files[1], workspace.root.parent / "service.jsonl"
    service.write_text(json.dumps({"id": "s", "prompt": "100"}) + "\n")
    result = run("run", "--crew", crew, "--tasks", str(service), "--out", f"{service}.out", "--attach", url)
    assert result.exit_code == 0, result.output
    told = run.json("mine", "--agent", "worker")
    assert (told["rows"], told["refused"]) == (1, {"made for gate": 48, "made for evaluation": 24})
    (row,) = read_samples(Path(told["path"]), SFTSample)
    origin = workspace.store.get(row.trace_id).origin
    assert origin is not None and (origin.purpose, origin.task_set) == ("service", "service.jsonl")


def test_episodes_from_before_runs_said_what_they_are_for_are_never_learned_from(
    run: Any, files: list[str], url: str, workspace: Workspace
) -> None:
    run("evaluate", *files, "--attach", url)
    spans = list(workspace.store.spans())
    for path in workspace.spans.glob("*.jsonl"):
        path.unlink()
    log = SpanLog(workspace.spans)
    for span in spans:
        older = {name: value for name, value in span.attributes.items() if name != a.PURPOSE}
        log.append(span.model_copy(update={"attributes": older}), sync=False)
    log.close()
    asked = ("mine", "--agent", "worker", "--purpose", "service", "--purpose", "unknown")
    assert "made for evaluation (24)" in str(run.error(*asked))
    for path in (workspace.root / "evaluations").glob("*.jsonl"):
        path.unlink()
    assert "nothing says why it was made (24)" in str(run.error("mine", "--agent", "worker"))
    assert run.json(*asked)["rows"] > 0


def test_what_measures_cannot_be_asked_for(run: Any) -> None:
    refused = run.error("mine", "--agent", "worker", "--purpose", "gate")
    assert isinstance(refused, ConfigError)
    assert str(refused) == "--purpose gate: nobody learns from such runs; have service, teach, rollout, unknown"
