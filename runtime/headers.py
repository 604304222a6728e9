"""Headers for an endpoint, kept in an environment variable so that secrets stay out of files and command lines."""

import os

from journeyman.traces.errors import ConfigError


def read_headers(variable: str | None) -> dict[str, str]:
    """The `name=value,name=value` of that variable, none for None; raises `ConfigError` that quotes no value."""
    if variable is None:
        return {}
    text = os.environ.get(variable)
    if text is None:
        raise ConfigError(f"the environment variable {variable} with the endpoint's headers is not set")
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ConfigError(f"{variable} holds no headers: write them as name=value,name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}
