"""The `journeyman train-router` command: recorded runs become the classifier that routes between two models."""

from typing import Annotated

import typer

from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.models.routing import Classifier
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.errors import TrainingError
from journeyman.training.data.tasks.heldout import HeldOut
from journeyman.training.router import RouterConfig, find_tried, train_router, write_router


def train_router_command(
    agents: Annotated[list[str] | None, typer.Option("--agent", help="Only assignments of this agent")] = None,
    label: Annotated[str, typer.Option("--label", help="The label that tells how it turned out")] = "score",
    min_score: Annotated[float, typer.Option("--min-score", help="Smallest value that counts as success")] = 1.0,
    policies: Annotated[
        list[str] | None,
        typer.Option("--policy", help="A policy that is the small model (default: all but the large one)"),
    ] = None,
    useless_too: Annotated[
        bool, typer.Option("--anyway", help="Write it even if it is no better than one answer for all")
    ] = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from recorded runs which assignments the small model can do.

    It is tested on tasks that it was not trained on, and written only where that beats one answer for all. The runtime
    asks it where the routing table of journeyman.toml says classifier = true. Nothing is learned from the tasks of
    gate, test and vault under [tasks] of journeyman.toml.

    Example: journeyman train-router --agent clerk
    """
    workspace = find_workspace(folder)
    routing = workspace.config.routing
    config = RouterConfig(
        label=label,
        min_score=min_score,
        agents=tuple(agents or ()),
        policies=tuple(policies or ()),
        large=None if routing is None else routing.large,
    )
    classifier = train_router(find_tried(workspace.store, config, HeldOut.of(workspace)))
    if classifier.accuracy <= classifier.majority and not useless_too:
        raise TrainingError(
            f"not written: right about {classifier.accuracy:.0%} of {classifier.held_out} held-out assignments, where "
            f"one answer for all is right about {classifier.majority:.0%}; label more runs, or write it with --anyway"
        )
    write_router(classifier, workspace.create().router)
    emit(_summary(classifier, workspace), as_json, lambda: _show(classifier, workspace))


def _summary(classifier: Classifier, workspace: Workspace) -> dict[str, object]:
    measured = classifier.model_dump(include={"rows", "held_out", "accuracy", "majority"})
    return {**measured, "path": str(workspace.router)}


def _show(classifier: Classifier, workspace: Workspace) -> None:
    out.print(
        f"right about {classifier.accuracy:.1%} of {classifier.held_out} held-out assignments (one answer for all: "
        f"{classifier.majority:.1%}), trained on {classifier.rows}",
        soft_wrap=True,
    )
    out.print(str(workspace.router), markup=False, soft_wrap=True)
    if workspace.config.routing is None or not workspace.config.routing.classifier:
        notes.print("it is asked once journeyman.toml says [routing] classifier = true", markup=False)
