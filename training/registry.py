"""The registry: adapters as MLflow models with their lineage; the alias `active` follows the promotion journal."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from journeyman.runtime import variables
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.traces.base import Record
from journeyman.traces.errors import AdapterError, ConfigError, TrainingError
from journeyman.traces.files import regular

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from journeyman.training.evaluation.gate import Verdict

ACTIVE = "active"
"""The alias of the version in service."""

EXPERIMENT = "journeyman"
"""Of the training runs and the adapters that came from them."""

REGISTRATION = "registration.json"

DIGEST = 36
"""Characters of a dataset's digest that MLflow takes."""


class Registration(Record):
    """Kept beside the adapter: importing MLflow to look it up takes seconds."""

    version: str
    name: str
    uri: str


def register(
    adapter: Adapter, folder: Path, *, uri: str, run_id: str | None = None, verdict: "Verdict | None" = None
) -> Registration:
    """The adapter's version of the registered model `journeyman-{agent}`; the same digest always gives the same one.

    `run_id` names the training run it came from. A verdict that is given later is added to the version that is there.
    Raises `ConfigError` without MLflow and `TrainingError` where MLflow refuses.
    """
    with _client(uri) as client:
        version = _versions(client, adapter.agent).get(adapter.digest)
        if version is None:
            version = _register(client, adapter, folder, run_id, _experiment(client, uri))
        if verdict is not None:
            _note(client, version, verdict)
        registration = Registration(uri=uri, name=version.name, version=str(version.version))
    (folder / REGISTRATION).write_text(registration.model_dump_json() + "\n", encoding="utf-8")
    return registration


def read_registration(folder: Path) -> Registration | None:
    """Where that adapter was last registered, without asking MLflow."""
    path = folder / REGISTRATION
    try:
        return Registration.model_validate_json(regular(path).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise AdapterError(f"{path}: not a registration: delete it and register the adapter again") from None


def follow(agent: str, digest: str | None, *, uri: str) -> None:
    """Moves the alias `active` to the version of that digest; takes it away for None, when the base model serves."""
    with _client(uri) as client:
        version = None if digest is None else _versions(client, agent).get(digest)
        if version is not None:
            client.set_registered_model_alias(model_name(agent), ACTIVE, version.version)
        elif _is_registered(client, model_name(agent)):
            client.delete_registered_model_alias(model_name(agent), ACTIVE)


def experiment(uri: str) -> str:
    """Id of the experiment `journeyman`; a local store is told to keep its artifacts beside itself."""
    with _client(uri) as client:
        return _experiment(client, uri)


def model_name(agent: str) -> str:
    return f"journeyman-{agent}"


def dataset_name(agent: str, method: str) -> str:
    """What a dataset is called as an input of its run, and beside the adapter's metrics."""
    return f"{agent}-{method}"


def _register(
    client: "MlflowClient", adapter: Adapter, folder: Path, run_id: str | None, experiment_id: str
) -> "ModelVersion":
    name, tags = model_name(adapter.agent), _tags(adapter)
    model = client.create_logged_model(experiment_id, name=adapter.policy, source_run_id=run_id, tags=tags)
    try:
        client.log_model_artifacts(model.model_id, str(folder))
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    if run_id is not None:
        for key, value in (("rows", adapter.rows), ("train_seconds", adapter.train_seconds)):
            client.log_metric(
                run_id,
                key,
                value,
                model_id=model.model_id,
                dataset_name=dataset_name(adapter.agent, adapter.method),
                dataset_digest=adapter.dataset_digest[:DIGEST],
            )
    client.finalize_logged_model(model.model_id, "READY")
    if not _is_registered(client, name):
        client.create_registered_model(name, description=f"LoRA adapters and prompts of the agent {adapter.agent}")
    return client.create_model_version(
        name, source=f"models:/{model.model_id}", run_id=run_id, tags=tags, model_id=model.model_id
    )


def _tags(adapter: Adapter) -> dict[str, str]:
    return {
        "agent": adapter.agent,
        "policy": adapter.policy,
        "digest": adapter.digest,
        "parent": adapter.parent,
        "base_digest": adapter.base_digest,
        "dataset_digest": adapter.dataset_digest,
        "recipe_digest": adapter.recipe_digest,
        "method": adapter.method,
    }


def _note(client: "MlflowClient", version: "ModelVersion", verdict: "Verdict") -> None:
    low, high = verdict.interval
    tags = {
        "verdict": verdict.decision,
        "verdict.incumbent": verdict.incumbent,
        "verdict.gain": f"{verdict.mean_delta:+.4f} ({low:+.4f} .. {high:+.4f})",
    }
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def _versions(client: "MlflowClient", agent: str) -> "dict[str, ModelVersion]":
    versions = client.search_model_versions(f"name = '{model_name(agent)}'")
    return {version.tags["digest"]: version for version in versions if "digest" in version.tags}


def _is_registered(client: "MlflowClient", name: str) -> bool:
    return bool(client.search_registered_models(f"name = '{name}'"))


def _experiment(client: "MlflowClient", uri: str) -> str:
    known = client.get_experiment_by_name(EXPERIMENT)
    if known is not None:
        return str(known.experiment_id)
    store = uri.removeprefix("sqlite:///")
    return client.create_experiment(
        EXPERIMENT, artifact_location=None if store == uri else str(Path(store).resolve().parent / "mlartifacts")
    )


@contextmanager
def _client(uri: str) -> Iterator["MlflowClient"]:
    """A client of the store at `uri`, quiet: migrations and deprecations are nothing to a reader of our output."""
    # An MLflow server that is down would be asked seven times, with growing pauses.
    os.environ.setdefault(variables.MLFLOW_RETRIES, "2")
    # It would print addresses into the output of `--json`.
    os.environ.setdefault(variables.MLFLOW_QUIET, "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import mlflow
            from mlflow.exceptions import MlflowException
        except ImportError:
            raise ConfigError("the registry needs MLflow: pip install 'journeyman[mlflow]'") from None
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        before = mlflow.get_tracking_uri()
        # The SQL registry resolves models:/ sources with a client of its own, which knows only the global address.
        mlflow.set_tracking_uri(uri)
        try:
            yield mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        except MlflowException as error:
            said = str(error).splitlines()[0]
            if " failed with exception " in said:  # In the words of the client's HTTP library.
                said = "it can't be reached: start it, or name another under `mlflow` in journeyman.toml"
            raise TrainingError(f"MLflow at {uri}: {said}") from None
        finally:
            mlflow.set_tracking_uri(before)
