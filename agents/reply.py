"""JSON from outside, as values that can be written down again."""

import json
import re
from typing import Any

MAX_DEPTH = 64
"""Of lists and objects within each other; what reads the record back goes hardly deeper."""

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL | re.IGNORECASE)
"""What models without a schema to hold them write around JSON."""


class UnreadableReplyError(ValueError):
    """A reply that is not what was asked for; the message says why, for the model to read."""


class TruncatedReplyError(Exception):
    """A reply that was cut off at its limit of tokens."""


def read_json(text: str) -> Any:
    """What `text` holds, also in a Markdown fence; raises `UnreadableReplyError` with a reason."""
    if fenced := _FENCE.fullmatch(text.strip()):
        text = fenced[1]
    try:
        said = json.loads(text)
        deep = max(text.count("{"), text.count("[")) > MAX_DEPTH // 2 and _is_deep(said, MAX_DEPTH)
        json.dumps(said, ensure_ascii=False, allow_nan=False).encode()
    except json.JSONDecodeError as error:
        raise UnreadableReplyError(f"it is not valid JSON ({error.msg})") from None
    except UnicodeEncodeError:
        raise UnreadableReplyError("it holds half a surrogate pair, which isn't a character") from None
    except RecursionError:
        deep = True
    except ValueError:
        raise UnreadableReplyError("it holds a number that JSON cannot write, or one of thousands of digits") from None
    if deep:
        raise UnreadableReplyError(f"it is nested more than {MAX_DEPTH} deep")
    return said


def _is_deep(value: Any, left: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return left == 0 or any(_is_deep(one, left - 1) for one in (value.values() if isinstance(value, dict) else value))
