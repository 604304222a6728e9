"""What an agent's model calls were sent, as attributes: of a prompt that goes on from the last, the rest is written."""

from array import array
from hashlib import sha256
from operator import is_

from journeyman.traces import attributes as a
from journeyman.traces.capture.growth import GrowingList
from journeyman.traces.messages import Message, as_json, instructions_attribute, write_message


class Sent:
    """Remembers the last prompt of an agent's work."""

    def __init__(self) -> None:
        self._prompt: tuple[Message, ...] = ()
        self._messages = GrowingList()
        self._hash = sha256()
        self._packed = b""
        self._ids = GrowingList()

    def messages(self, prompt: tuple[Message, ...]) -> dict[str, str]:
        """What `prompt_attributes` gives."""
        apart = instructions_attribute(prompt)
        known = len(self._prompt)
        # Not whether they are equal: equal arguments of a call may be written otherwise, such as 1 and 1.0.
        if not (0 < known <= len(prompt) and all(map(is_, self._prompt, prompt))):
            known, self._messages, self._hash = len(apart), GrowingList(), sha256()
            self._hash.update(_encoded("".join([f"{text}\n" for text in apart.values()]) + "["))
        self._prompt = prompt
        self._hash.update(_encoded(self._messages.add(",".join(map(write_message, prompt[known:])))))
        return {**apart, a.INPUT_MESSAGES: self._messages.text()}

    @property
    def digest(self) -> str:
        """SHA-256 of the last messages as they are recorded, a line for each attribute."""
        digest = self._hash.copy()
        digest.update(b"]")
        return digest.hexdigest()

    def token_ids(self, ids: tuple[int, ...]) -> str:
        """The attribute for the prompt as the server's tokens."""
        try:
            numbers = array("I", ids)
        except OverflowError:
            return as_json(ids)
        packed = numbers.tobytes()
        if not packed.startswith(self._packed):
            self._packed, self._ids = b"", GrowingList()
        self._ids.add(as_json(ids[len(self._packed) // numbers.itemsize :])[1:-1])
        self._packed = packed
        return self._ids.text()


def _encoded(text: str) -> bytes:
    """A model can write half a surrogate pair, which has no UTF-8 form."""
    return text.encode("utf-8", "surrogatepass")
