"""The error tree: everything that journeyman raises on purpose.

    JourneymanError
    ├── ConfigError      what a user wrote or asked for (exit code 2)
    ├── ModelError       a model call that failed; knows its HTTP status and whether a retry may help
    ├── ToolError        what a tool says when it cannot do what it was asked
    ├── StoreError       a record that could not be written or read
    ├── DeliveryError    an endpoint that did not take a copy of the record; knows whether a retry may help
    ├── ServerError      a model server that cannot be started, reached or stopped
    ├── TrainingError    a dataset or a training run that cannot go on
    └── AdapterError     an adapter that is damaged, unknown, or not fit for the server

Messages are one line: what was wrong, and what would be right.
"""

from typing import ClassVar


class JourneymanError(Exception):
    """Base of the tree; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ConfigError(JourneymanError, ValueError):
    exit_code = 2


class ModelError(JourneymanError):
    def __init__(self, message: str, *, status: int | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, where the server answered at all."""
        self.retryable = retryable


class ToolError(JourneymanError):
    pass


class StoreError(JourneymanError):
    pass


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
