"""Several processes that train together, as `accelerate launch` starts them: the first leads, the others follow."""

import os
from typing import TypeVar

from journeyman.runtime import variables

T = TypeVar("T")


def processes() -> int:
    return int(os.environ.get(variables.PROCESSES, "1"))


def follows() -> bool:
    """Whether another process leads: this one computes its share of each step, and writes nothing."""
    return processes() > 1 and os.environ.get(variables.RANK, "0") != "0"


def share(value: T | None = None) -> T | None:
    """The leader's value, in each process; whoever comes first waits."""
    if processes() == 1:
        return value
    import torch
    from accelerate import PartialState  # type: ignore[import-untyped]
    from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]

    PartialState(cpu=not torch.cuda.is_available())
    box = [value]
    broadcast_object_list(box)
    return box[0]


def any_of(flag: bool) -> bool:
    """Whether it is so in one of the processes."""
    if processes() == 1:
        return flag
    import torch
    from accelerate import PartialState
    from torch.distributed import ReduceOp, all_reduce

    box = torch.tensor(float(flag), device=PartialState().device)
    all_reduce(box, ReduceOp.MAX)
    return bool(box.item())
