"""The table `[rollouts]` of a recipe: how many runs of the crew a step learns from, and what they are compared by."""

from collections.abc import Sequence
from hashlib import sha256

from pydantic import Field

from journeyman.traces.base import Config
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.rollouts.groups import Scale

SHARE, FROM, MOST = 0.1, 60, 16
"""Tasks that are held out where the recipe doesn't say: their share, of so many or more, and their number at most."""


class RolloutTable(Config):
    """Table `[rollouts]`. Replies of the agent that learns are sampled at temperature 1, all others as in service."""

    tasks: int = Field(default=8, ge=1)
    """Tasks of a step."""
    group: int = Field(default=8, ge=2)
    """Runs of each task; what they came to is compared within the group."""
    staleness: int = Field(default=0, ge=0)
    """Most steps by which the weights that sampled a row may be older than those that learn from it. From 1 on,
    rollouts run while the trainer computes: on few cores both are slower for it."""
    concurrency: int = Field(default=16, ge=1)
    """Runs at once."""
    scale: Scale = "agent"
    """What advantages are divided by: the deviation over all the agent's turns of the step, over their own `group`, or
    `none`."""
    longest: int | None = Field(default=None, ge=1)
    """Tokens of prompt and reply together, beyond which a turn is not learned from; None is no limit."""
    held_out: int | None = Field(default=None, ge=0)
    """Tasks that are held out of training, and answered greedily to see whether the reward teaches what is wanted.
    None: a tenth of 60 tasks or more, 16 at most."""
    look: int = Field(default=10, ge=1)
    """Rounds between two looks at them."""
    seed: int = 0
    """Of the order of tasks, and of sampling."""

    def parted(self, tasks: Sequence[Task]) -> tuple[list[Task], list[Task]]:
        """The tasks to learn from, and those held out, by a hash of their ids; raises `ConfigError` where none is left
        to learn from."""
        count = self.held_out
        if count is None:
            count = min(round(SHARE * len(tasks)), MOST) if len(tasks) >= FROM else 0
        if count >= len(tasks):
            raise ConfigError(f"rollouts.held_out is {count}, there are {len(tasks)} tasks: leave some to learn from")
        order = sorted(tasks, key=lambda task: sha256(task.id.encode()).digest())
        aside = {task.id for task in order[:count]}
        return [task for task in tasks if task.id not in aside], [task for task in tasks if task.id in aside]
