"""Tracking: a training run as MLflow shows it, with its parameters and the loss of every step."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from journeyman.runtime.adapters.adapter import Adapter
from journeyman.training.data.datasets.shelf import KnownDataset
from journeyman.training.registry import DIGEST, experiment
from journeyman.training.trainings.journal import versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

RUN = "mlflow_run"
"""File in the folder of an unfinished run: the id of the MLflow run that goes on when training does."""


class TrackedRun:
    """A run that is being logged, or none. If MLflow fails on the way it is told no more, and training goes on."""

    def __init__(self, client: "MlflowClient | None", run_id: str) -> None:
        self._client = client
        self._run_id = run_id

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._client is None:
            return
        from mlflow.entities import Metric

        now = int(time() * 1000)
        told = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._tell(lambda client: client.log_batch(self._run_id, metrics=told))

    def begins(self, recipe: Mapping[str, Any]) -> None:
        """What it trains by: the recipe as a file, and the libraries' versions."""
        from mlflow.entities import RunTag

        self._tell(lambda client: client.log_dict(self._run_id, dict(recipe), "recipe.json"))
        told = [RunTag(f"version.{package}", number) for package, number in versions().items()]
        self._tell(lambda client: client.log_batch(self._run_id, tags=told))

    def learns_from(self, dataset: KnownDataset, name: str) -> None:
        """Names the dataset as an input of the run, with what its card counts."""
        if self._client is None:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        counted = dataset.card.model_dump(mode="json", exclude={"made_by", "refused"})
        entity = Dataset(
            name=name,
            digest=dataset.digest[:DIGEST],
            source_type="local",
            source=json.dumps({"uri": str(dataset.path.resolve())}),
            profile=json.dumps(counted),
        )
        given = DatasetInput(entity, [InputTag("mlflow.data.context", "training")])
        self._tell(lambda client: client.log_inputs(self._run_id, datasets=[given]))

    def finish(self, adapter: Adapter, folder: Path | None = None, dataset: KnownDataset | None = None) -> None:
        """Ties the run to its adapter, so that `run_of` finds it, and gives it the adapter's files in `folder`."""
        if folder is not None:
            self._tell(lambda client: client.log_artifacts(self._run_id, str(folder), "adapter"))
        if dataset is not None:
            card = dataset.card.model_dump_json(indent=2)
            self._tell(lambda client: client.log_text(self._run_id, card, "dataset_card.json"))
        self._tell(lambda client: client.log_metric(self._run_id, "train_seconds", adapter.train_seconds))
        self._tell(lambda client: client.set_tag(self._run_id, "digest", adapter.digest))
        self.end("FINISHED")

    def end(self, status: str) -> None:
        self._tell(lambda client: client.set_terminated(self._run_id, status))

    @contextmanager
    def machine_watched(self, uri: str) -> Iterator[None]:
        """MLflow's own system metrics of the machine, as long as the block runs, where psutil is installed."""
        if find_spec("psutil") is None:
            yield
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor: Any = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
            self._run_id, resume_logging=True, tracking_uri=uri
        )
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def _tell(self, say: "Callable[[MlflowClient], object]") -> None:
        if self._client is None:
            return
        from mlflow.exceptions import MlflowException

        try:
            say(self._client)
        except (MlflowException, OSError) as error:  # What it says of files that can't be sent is OSError.
            self._client = None
            logger.warning("MLflow is told no more of this run: %s", str(error).splitlines()[0])


@contextmanager
def track(
    uri: str | None, partial: Path, *, policy: str, job: Mapping[str, str], recipe: Mapping[str, Any]
) -> Iterator[TrackedRun]:
    """A run in the experiment `journeyman` at `uri`: a new one, or the one that `partial` was begun under.

    With no URI, or without MLflow, nothing is logged. Raises `TrainingError` where MLflow can't be reached at first.
    """
    if uri is not None and find_spec("mlflow") is None:
        logger.warning("MLflow is not installed, so this run is not logged: pip install 'journeyman[mlflow]'")
        uri = None
    run = TrackedRun(None, "") if uri is None else _begin(uri, partial, policy, job, recipe)
    try:
        with nullcontext() if uri is None else run.machine_watched(uri):
            yield run
    except BaseException as error:
        run.end("FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def run_of(adapter: Adapter, *, uri: str) -> str | None:
    """Id of the MLflow run that trained the adapter, where there is one."""
    client = _client(uri)
    runs = client.search_runs([experiment(uri)], f"tags.digest = '{adapter.digest}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def _begin(uri: str, partial: Path, policy: str, job: Mapping[str, str], recipe: Mapping[str, Any]) -> TrackedRun:
    experiment_id = experiment(uri)
    client = _client(uri)
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    record = partial / RUN
    if record.exists():
        try:
            run_id = record.read_text(encoding="utf-8")
            client.update_run(run_id, status="RUNNING")
            return TrackedRun(client, run_id)
        except MlflowException:
            logger.info("the MLflow run %s is gone: a new one is begun", run_id)
    run_id = client.create_run(experiment_id, tags={"policy": policy, **job}, run_name=policy).info.run_id
    client.log_batch(run_id, params=[Param(key, value) for key, value in _params(recipe).items()])
    record.write_text(run_id, encoding="utf-8")
    run = TrackedRun(client, run_id)
    run.begins(recipe)
    return run


def _params(recipe: Mapping[str, Any]) -> dict[str, str]:
    tables = {key: value for key, value in recipe.items() if isinstance(value, Mapping)}
    flat = {f"{table}.{key}": str(value) for table, values in tables.items() for key, value in values.items()}
    return flat | {key: str(value) for key, value in recipe.items() if key not in tables}


def _client(uri: str) -> "MlflowClient":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)
