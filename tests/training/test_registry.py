"""The registry on a real MLflow store: lineage in, one version for one digest, and an alias that follows."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.runtime.adapters.adapter import WEIGHTS, load_adapter
from journeyman.traces.errors import TrainingError
from journeyman.training.evaluation.evaluate import Episode
from journeyman.training.evaluation.gate import GateConfig, decide
from journeyman.training.registry import (
    ACTIVE,
    Registration,
    _client,
    experiment,
    follow,
    model_name,
    read_registration,
    register,
)

MakeAdapter = Callable[..., Path]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def tags(uri: str, agent: str, version: str) -> dict[str, str]:
    with _client(uri) as client:
        return dict(client.get_model_version(model_name(agent), version).tags)


def active(uri: str, agent: str) -> str | None:
    with _client(uri) as client:
        version = client.get_registered_model(model_name(agent)).aliases.get(ACTIVE)
        return None if version is None else str(version)


def test_an_adapter_is_registered_with_its_files_and_its_lineage(uri: str, make_adapter: MakeAdapter) -> None:
    folder = make_adapter("worker@8")
    adapter = load_adapter(folder)
    version = register(adapter, folder, uri=uri).version
    found = tags(uri, "worker", version)
    assert found["policy"] == "worker@8" and found["agent"] == "worker" and found["parent"] == "base"
    assert found["dataset_digest"] == adapter.dataset_digest and found["base_digest"] == adapter.base_digest
    assert list(Path(uri.removeprefix("sqlite:///")).parent.rglob(WEIGHTS))
    assert read_registration(folder) == Registration(version=version, name="journeyman-worker", uri=uri)


def test_the_same_digest_is_the_same_version(uri: str, make_adapter: MakeAdapter) -> None:
    first, second = make_adapter("planner@1"), make_adapter("planner@2")
    assert [register(load_adapter(folder), folder, uri=uri).version for folder in (first, second, first)] == [
        "1",
        "2",
        "1",
    ]


def test_a_verdict_given_later_is_added_to_the_version(uri: str, make_adapter: MakeAdapter) -> None:
    folder = make_adapter("judge@1")
    register(load_adapter(folder), folder, uri=uri)
    verdict = decide(episodes(1.0), episodes(0.5), GateConfig(min_tasks=2), names=("judge@1", "base"))
    version = register(load_adapter(folder), folder, uri=uri, verdict=verdict).version
    found = tags(uri, "judge", version)
    assert (found["verdict"], found["verdict.incumbent"]) == ("promote", "base")
    assert found["verdict.gain"] == "+0.5000 (+0.5000 .. +0.5000)"


def test_the_training_run_and_its_adapter_know_each_other(uri: str, make_adapter: MakeAdapter) -> None:
    folder = make_adapter("reader@1")
    adapter = load_adapter(folder)
    with _client(uri) as client:
        run_id = client.create_run(experiment(uri)).info.run_id
    version = register(adapter, folder, uri=uri, run_id=run_id).version
    with _client(uri) as client:
        assert client.get_model_version(model_name("reader"), version).run_id == run_id
        assert client.get_run(run_id).data.metrics == {"rows": 8.0, "train_seconds": 1.0}


def test_the_alias_follows_what_is_in_service(uri: str, make_adapter: MakeAdapter) -> None:
    folders = [make_adapter(f"writer@{number}") for number in (1, 2)]
    adapters = [load_adapter(folder) for folder in folders]
    for adapter, folder in zip(adapters, folders, strict=True):
        register(adapter, folder, uri=uri)
    for adapter, version in zip(adapters, ("1", "2"), strict=True):
        follow("writer", adapter.digest, uri=uri)
        assert active(uri, "writer") == version
    follow("writer", None, uri=uri)
    assert active(uri, "writer") is None
    follow("nobody", None, uri=uri)


def test_a_store_that_cannot_be_opened_is_one_line() -> None:
    with pytest.raises(TrainingError) as refused:
        experiment("nonsense://nowhere")
    assert "\n" not in str(refused.value)


def test_nothing_of_mlflow_reaches_the_terminal(tmp_path: Path) -> None:
    code = "import sys; from journeyman.training.registry import experiment; experiment(sys.argv[1])"
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = subprocess.run([sys.executable, "-c", code, uri], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout + done.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db"}


def episodes(score: float) -> list[Episode]:
    return [
        Episode(
            task_id=f"q{number}",
            score=score,
            status="ok",
            input_tokens=1,
            output_tokens=1,
            model_calls=1,
            seconds=1.0,
            trace_id="t",
        )
        for number in range(3)
    ]
