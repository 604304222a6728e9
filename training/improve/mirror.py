"""The mirror: MLflow is told what the journal says. The journal counts; MLflow may be down, or not installed."""

import logging
from importlib.util import find_spec
from pathlib import Path

from journeyman.runtime.adapters.adapter import find_adapter, load_adapter
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import JourneymanError
from journeyman.training.evaluation.gate import read_verdict
from journeyman.training.registry import Registration, follow, register
from journeyman.training.tracking import run_of

logger = logging.getLogger(__name__)


def register_adapter(folder: Path, uri: str) -> Registration:
    """The adapter in `folder`, registered with its training run and its verdict; doing so again changes nothing."""
    adapter = load_adapter(folder)
    return register(adapter, folder, uri=uri, run_id=run_of(adapter, uri=uri), verdict=read_verdict(folder))


def mirror(workspace: Workspace, agent: str) -> None:
    """Registers what the agent has in service and moves the alias `active` to it; a failure is a warning."""
    entry = Journal(workspace.journal).latest().get(agent)
    if entry is None or find_spec("mlflow") is None:
        return
    uri = workspace.mlflow_uri
    try:
        if entry.digest is not None:
            register_adapter(find_adapter(workspace.adapters, entry.policy), uri)
        follow(agent, entry.digest, uri=uri)
    except JourneymanError as error:
        logger.warning("%s is in service, but MLflow isn't told: %s", entry.policy, error)
