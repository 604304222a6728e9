"""A secret of the environment on its way into a header."""

from journeyman.traces.errors import ConfigError


def header_text(secret: str, what: str) -> str:
    """`secret` without the line end that a file leaves behind it; raises `ConfigError` where no header can hold it.

    Sent as it is it would be refused in words that quote it, and errors are kept and shown.
    """
    text = secret.strip()
    if not (text.isascii() and text.isprintable()):
        raise ConfigError(f"{what} holds a character that no header can: was it copied whole, and alone?")
    return text
