"""The end of what a started server writes to its standard error, and what of it may be shown."""

import os
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from journeyman.traces.capture.redact import Redactor

KEPT_BYTES = 4_000
SHOWN_CHARS = 300
SHORTEST_SECRET = 4
"""Characters; of shorter values the text would be full."""
MAX_WORDS = 3
"""Of an argument, such as a header with a token in it; a longer one is a text or a program."""
SECONDS_TO_ARRIVE = 0.5


class LastWords:
    """Reads a pipe to its end in a thread of its own, so that no server waits; the file `log` gets all of it."""

    def __init__(self, log: Path, secrets: Iterable[str]) -> None:
        self._secrets = sorted({one for one in secrets if len(one) >= SHORTEST_SECRET}, key=len, reverse=True)
        self._kept = b""
        # Line by line, so that several servers may share a file.
        self._log = log.open("ab")
        reading, writing = os.pipe()
        self.pipe: TextIO = os.fdopen(writing, "w")
        """For the server; to be closed here once it has it."""
        self._thread = threading.Thread(target=self._hear, args=(reading,), name="mcp stderr", daemon=True)
        self._thread.start()

    def shown(self) -> str:
        """In one line, without secrets; empty where nothing was written."""
        self._thread.join(SECONDS_TO_ARRIVE)
        text = self._kept.decode(errors="replace")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = Redactor().redact(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text), set())
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        last = " | ".join(lines[-3:])
        return last if len(last) <= SHOWN_CHARS else f"…{last[-SHOWN_CHARS:]}"

    def _hear(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as pipe, self._log:
            while chunk := pipe.readline(KEPT_BYTES):
                self._kept = (self._kept + chunk)[-KEPT_BYTES:]
                with suppress(OSError):  # A full disk is no reason to stop listening.
                    self._log.write(chunk)
                    self._log.flush()


def secrets_of(command: Iterable[str], env: Iterable[str]) -> list[str]:
    """What must not be shown: the values of the variables, and of the arguments all but the names of options."""
    found = list(env)
    previous = ""
    for argument in list(command)[1:]:
        name, _, value = argument.partition("=")
        if argument.startswith("-"):
            found += [value, "" if name.startswith("--") else argument[2:]]
        elif previous != "-m":  # The name of a module, which is what most often cannot be found.
            found += [argument, value]
        previous = argument
    words = [word for one in found for word in (one, *(one.split() if len(one.split()) <= MAX_WORDS else ()))]
    return [form for word in words for form in (word, repr(word)[1:-1], quote(word))]
