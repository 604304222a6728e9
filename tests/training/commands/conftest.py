"""The commands of the loop's end, in one workspace."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from journeyman.runtime.commands.run import run as run_command
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import JourneymanError
from journeyman.training.commands import adapters
from journeyman.training.commands.evaluate import evaluate_command
from journeyman.training.commands.gate import gate_command
from journeyman.training.commands.mine import mine_command
from journeyman.training.commands.teach import teach_command
from journeyman.training.commands.train import train


class Commands:
    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._app = typer.Typer()
        self._app.add_typer(adapters.app, name="adapters")
        self._app.command("gate")(gate_command)
        self._app.command("evaluate")(evaluate_command)
        self._app.command("mine")(mine_command)
        self._app.command("teach")(teach_command)
        self._app.command("train")(train)
        self._app.command("run")(run_command)

    def __call__(self, *arguments: str) -> Result:
        options = [*arguments, "-C", str(self._workspace.root)]
        return CliRunner().invoke(self._app, options, env={"COLUMNS": "120"})

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert not isinstance(result.exception, JourneymanError), result.exception
        return json.loads(result.stdout)

    def error(self, *arguments: str) -> JourneymanError:
        result = self(*arguments)
        assert isinstance(result.exception, JourneymanError), result.output
        return result.exception


@pytest.fixture
def run(workspace: Workspace) -> Commands:
    (workspace.root.parent / "journeyman.toml").write_text(f'mlflow = "sqlite:///{workspace.root}/mlflow.db"\n')
    return Commands(workspace)


@pytest.fixture
def project(workspace: Workspace, url: str) -> Callable[..., None]:
    """Writes a journeyman.toml that names the endpoint `big`."""

    def write(more: str = "", *, url: str = url) -> None:
        (workspace.root.parent / PROJECT_FILE).write_text(
            f'{more}\n[models.big]\nurl = "{url}/v1"\nmodel = "org/large"\nretries = 0\n'
        )

    return write
