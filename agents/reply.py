"""JSON from outside, as values that can be written down again."""

import json
from typing import Any


def read_json(text: str) -> Any:
    """What `text` holds; raises `ValueError` with a reason."""
    try:
        said = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON ({error.msg})") from None
    try:
        json.dumps(said, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half a surrogate pair, which is no character") from None
    return said
