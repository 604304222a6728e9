"""The shelf: the datasets of a workspace, each with its card, and whether the file is still what the card is of."""

from pathlib import Path
from typing import Literal

from journeyman.runtime.adapters.datasets import dataset_files, digest_file, find_dataset
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, StoreError, TrainingError
from journeyman.traces.files import regular
from journeyman.training.data.datasets.card import Card, Profile, Provenance, card_path, read_card, write_card
from journeyman.training.data.datasets.rows import read_rows
from journeyman.training.data.samples import dataset_file_name, write_lines

State = Literal["whole", "no card", "changed", "damaged"]
"""`no card`: from before there were cards, or from elsewhere. `changed`: the file isn't what its card is of. `damaged`:
the card is none, or lines are no rows."""


class KnownDataset(Record):
    """A file of rows, and what is known of it."""

    path: Path
    digest: str
    """Of the file as it is."""
    card: Card
    """Made from the rows where there is none beside the file."""
    state: State = "whole"


class Listed(Record):
    """A file on the shelf, whatever its state."""

    path: Path
    state: State
    digest: str | None = None
    card: Card | None = None
    fault: str | None = None
    """What is wrong with it."""


def open_dataset(workspace: Workspace, name: str | Path) -> KnownDataset:
    """The dataset of that path, name or digest; raises `TrainingError` where the file was changed after it was made.

    Raises `ConfigError` for a name of nothing, `StoreError` and `TrainingError` for what is no card or no row.
    """
    path = find_dataset(workspace.datasets, str(name))
    digest, card = digest_file(path), read_card(path)
    if card is None:
        return KnownDataset(path=path, digest=digest, card=_from_rows(path, digest, workspace), state="no card")
    if card.digest != digest:
        raise TrainingError(
            f"{path} was changed after it was made (its card says {card.digest[:12]}, it is {digest[:12]}): mine it "
            f"again, or remove {card_path(path).name} to use it as it is"
        )
    if card.form is not None:
        raise ConfigError(f"{path} is an export for {card.form}: name the dataset, {str(card.exported_from)[:12]}")
    return KnownDataset(path=path, digest=digest, card=card)


def shelve(workspace: Workspace, dataset: KnownDataset, agent: str) -> KnownDataset:
    """The dataset as the workspace has it: a file from elsewhere is copied, so that lineage and deletions find it."""
    for path in dataset_files(workspace.datasets):
        if digest_file(path) == dataset.digest:
            return dataset.model_copy(update={"path": path})
    with regular(dataset.path).open("rb") as lines:
        copy = write_lines(
            lines,
            workspace.datasets,
            lambda digest: dataset_file_name(agent, digest),
            lambda file: write_card(dataset.card, file.path) if dataset.state == "whole" else None,
        )
    return dataset.model_copy(update={"path": copy.path})


def list_datasets(workspace: Workspace) -> list[Listed]:
    """Every file of the workspace's folder, the newest last."""
    listed = [_listed(workspace, path) for path in dataset_files(workspace.datasets)]
    return sorted(listed, key=lambda one: (one.card.made_ns or 0 if one.card else 0, one.path.name))


def _listed(workspace: Workspace, path: Path) -> Listed:
    try:
        dataset = open_dataset(workspace, path)
    except ConfigError as error:
        return Listed(path=path, state="damaged", fault=str(error))
    except (StoreError, TrainingError) as error:
        changed = isinstance(error, TrainingError) and card_path(path).exists()
        return Listed(path=path, state="changed" if changed else "damaged", fault=str(error))
    return Listed(path=path, state=dataset.state, digest=dataset.digest, card=dataset.card)


def _from_rows(path: Path, digest: str, workspace: Workspace) -> Card:
    profile = Profile()
    for row in read_rows(path):
        try:
            profile.add(row)
        except (TypeError, ValueError, AttributeError, KeyError):
            raise TrainingError(
                f"{path}: line {row.number} isn't a row: take it out, or mine the dataset again"
            ) from None
    return profile.card(digest, Provenance(workspace.store), turns=None, refused={})
