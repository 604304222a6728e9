"""Training yields to a model server on the same machine: by its niceness, and by fewer threads."""

import os

from journeyman.runtime.config import TrainingConfig
from journeyman.runtime.serving.server import status
from journeyman.runtime.workspace import Workspace

NICE = 10
"""Beside a server: of a core that both want, training gets a tenth."""


def give_way(workspace: Workspace) -> str | None:
    """Makes this process yield for the rest of its life, and says how; None where nothing has changed.

    Call it before torch is imported: threads that run already keep their niceness. It can't be taken back, so a program
    that serves requests itself should train in a process of its own.
    """
    config = workspace.config.training
    nice = _niceness(workspace, config)
    if nice > (now := os.getpriority(os.PRIO_PROCESS, 0)):
        os.nice(nice - now)
    if config.threads is not None:
        import torch

        torch.set_num_threads(config.threads)
    said = [f"niceness {nice}"] if nice > now else []
    said += [] if config.threads is None else [f"{config.threads} threads"]
    return f"training yields to others on this machine: {', '.join(said)}" if said else None


def _niceness(workspace: Workspace, config: TrainingConfig) -> int:
    if config.nice is not None:
        return config.nice
    return NICE if _serves(workspace) else 0


def _serves(workspace: Workspace) -> bool:
    """Whether the workspace's own server runs on this machine."""
    known = status(workspace)
    return known.server is not None and not known.server.attached and known.condition in ("running", "starting")
