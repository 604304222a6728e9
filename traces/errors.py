"""The error tree: everything that journeyman raises on purpose.

    JourneymanError
    ├── ConfigError      what a user wrote or asked for (exit code 2)
    ├── ModelError       a model call that failed; knows which kind of failure it is, and its HTTP status
    ├── OverBudgetError  a call that the run's budget has no room for; knows the limit (exit code 5)
    ├── ToolError        what a tool says when it cannot do what it was asked
    ├── StoreError       a record that could not be written or read
    ├── DeliveryError    an endpoint that did not take a copy of the record; knows whether a retry may help
    ├── ServerError      a model server that cannot be started, reached or stopped
    ├── TrainingError    a dataset or a training run that cannot go on
    └── AdapterError     an adapter that is damaged, unknown, or not fit for the server

Messages are one line: what was wrong, and what would be right.
"""

from typing import ClassVar, Literal

ModelFailure = Literal["unreachable", "timeout", "rate_limited", "server_error", "refused", "unusable"]
"""Why a model call failed.

`unreachable`: no connection, or it broke. `timeout`: no whole reply in time. `rate_limited`: HTTP 429. `server_error`:
HTTP 5xx. `refused`: the server will not answer this request, whenever it is asked (HTTP 4xx). `unusable`: an answer
came that is no chat completion.
"""

PASSING: frozenset[ModelFailure] = frozenset({"unreachable", "timeout", "rate_limited", "server_error"})
"""Kinds that may be over when the same request is sent again."""


def error_type(error: BaseException) -> str:
    """What the record calls it: its own word where it has one (`error.error_type`), else its class."""
    return str(getattr(error, "error_type", type(error).__name__))


def in_one_line(error: Exception) -> str:
    """Somebody else's error, as a part of a message of ours."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def writable(message: str) -> str:
    """`message` without half surrogate pairs: somebody else's error may quote them, and no store can keep them."""
    return message.encode("utf-8", "replace").decode()


class JourneymanError(Exception):
    """Base of the tree; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ConfigError(JourneymanError, ValueError):
    """What a user wrote or asked for is wrong."""

    exit_code = 2


class ModelError(JourneymanError):
    """A model call failed; `kind` says how, `status` is that of HTTP."""

    def __init__(
        self, message: str, *, kind: ModelFailure = "refused", status: int | None = None, wait_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind: ModelFailure = kind
        self.status = status
        """HTTP status, where the server answered at all."""
        self.wait_s = wait_s
        """Seconds after which the server wants to be asked again, where it says so."""

    @property
    def retryable(self) -> bool:
        return self.kind in PASSING

    @property
    def error_type(self) -> str:
        return self.kind


class OverBudgetError(JourneymanError):
    exit_code = 5

    def __init__(self, message: str, limit: str) -> None:
        super().__init__(message)
        self.limit = limit
        """Which one: `tokens`, `model_calls`, `tool_calls`, `seconds` or `cost`."""


class ToolError(JourneymanError):
    """What a tool raises when it can't do what it was asked; the model is told its message."""


class StoreError(JourneymanError):
    """A record could not be written or read."""


class DeliveryError(JourneymanError):
    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class ServerError(JourneymanError):
    pass


class TrainingError(JourneymanError):
    pass


class AdapterError(JourneymanError):
    pass
