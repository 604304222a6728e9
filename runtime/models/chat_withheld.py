"""What of a request a server isn't sent: a parameter that it refuses, and a seed that could end it.

A seed together with a temperature ends a vLLM server on a CPU, for everybody whom it serves, as soon as a prompt is
prefilled in parts (see `serving/engine.py`; no release of vLLM is known to be without that). A server of ours leaves
the fault out, and its version says so. A server of somebody else's is sent no seed where nothing rules a CPU out:

- What gives no version is no vLLM, or hides behind a gateway: it is sent seeds.
- A version with a label of its build says it: `+cpu` is one, `+cu129`, `+rocm700` or any other isn't.
- Wheels from PyPI have no label, whether for CUDA or for a CPU. Then the metrics tell: an older CPU build has set
  memory aside for its cache, a newer one takes blocks of 128 or 256 tokens where nobody chose a size. Where somebody
  did, or the metrics are off, nobody can tell. (A model with MLA has blocks of 16 on some CPUs too, and passes.)
- What doesn't answer in time is asked again with the next request.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from journeyman.agents.model import ModelRequest
from journeyman.agents.reply import UnreadableReplyError, read_json
from journeyman.runtime.models.chat_failures import read_complaint, read_parameter

SILENT = "the server did not say who it is"

SEEDABLE = "journeyman"
"""In the label of a server's version: it is one of ours, with the fault left out."""

OPTIONAL = ("max_tokens", "temperature", "seed", "parallel_tool_calls", "stream_options")
"""Keys of the body that a request can do without, or that have another name."""

RENAMED = {"max_tokens": "max_completion_tokens"}
"""What models that reason before they answer take in its stead."""

REFUSALS = re.compile(
    r"unsupported|(not|n't) (be )?support|unrecognized|unknown (field|name|parameter|argument)|not permitted", re.I
)
"""What servers say of a parameter that they know nothing of, or not with this model."""

UNSENT = ("seed", "temperature")
"""Of these the record of a call says whether the server was sent them."""

CACHE = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.M)
LABEL = re.compile(r'(\w+)="([^"]*)"')
CPU_BLOCKS = ("128", "256")
"""Sizes that vLLM chooses on a CPU, in tokens."""

Ask: TypeAlias = Callable[[str], Awaitable[str | None]]
"""Gives what a server has at a path beside its API, empty for nothing; None where it doesn't answer in time."""

_logger = logging.getLogger(__name__)


class Withheld:
    """What one server isn't sent, as it is learned from the server itself, once."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._refused: dict[str, dict[str, str]] = {}
        self._no_seed: str | None = SILENT
        self._is_known = False

    def learn_refusal(self, policy: str, body: Mapping[str, Any], status: int, reply: bytes) -> bool:
        """Whether `reply` refuses a parameter of `body` without which the request can be sent again."""
        said = read_complaint(reply)
        if status not in (400, 422) or not REFUSALS.search(said):
            return False
        named = next((key for key in OPTIONAL if re.search(rf"\b{key}\b", said)), None)
        name = read_parameter(reply) or named
        if name not in OPTIONAL or name not in body:
            return False
        known = self._refused.setdefault(policy, {})
        if name not in known:
            known[name] = "the server refuses it"
            instead = f"{RENAMED[name]} in its stead" if name in RENAMED else "nothing in its stead"
            _logger.warning("%s refuses %s for %s: it is sent %s", self._server, name, policy, instead)
        return True

    async def of(self, request: ModelRequest, ask: Ask) -> dict[str, str]:
        """Keys of the body that `request` is sent without, and why."""
        refused = self._refused.get(request.policy, {})
        if request.seed is None or request.temperature == 0:
            return refused
        await self._meet(ask)
        return refused if self._no_seed is None else {**refused, "seed": self._no_seed}

    async def _meet(self, ask: Ask) -> None:
        """Finds out who the server is, before it is sent its first seed."""
        if self._is_known or (told := await ask("/version")) is None:
            return
        version = read_version(told)
        metrics = "" if version is None or "+" in version else await ask("/metrics")
        if metrics is None or self._is_known:  # Several may have asked at once.
            return
        self._is_known, self._no_seed = True, None
        if version is not None and may_be_cpu(version, metrics):
            self._no_seed = f"vLLM {version} may be a CPU build, which a seeded sample can end"
            remedy = "`journeyman server start` serves seeded samples on a CPU too"
            _logger.warning("%s is sent no seeds: %s; %s", self._server, self._no_seed, remedy)


def without(body: Mapping[str, Any], withheld: Mapping[str, str]) -> dict[str, Any]:
    """What is sent of `body`, under the names that the server takes."""
    renamed = {RENAMED[key]: body[key] for key in withheld if key in RENAMED and key in body}
    return renamed | {key: value for key, value in body.items() if key not in withheld}


def read_version(told: str) -> str | None:
    """The version in what a server has at `/version`."""
    try:
        read = read_json(told)
    except UnreadableReplyError:
        return None
    version = read.get("version") if isinstance(read, dict) else None
    return version if isinstance(version, str) else None


def may_be_cpu(version: str, metrics: str) -> bool:
    """Whether a vLLM of that version and those metrics may be a CPU build that has the fault."""
    _, _, build = version.partition("+")
    if build:
        return "cpu" in build.split(".") and SEEDABLE not in build.split(".")
    found = CACHE.search(metrics)
    cache: dict[str, str] = dict(LABEL.findall(found[1])) if found else {}
    if (memory := cache.get("cpu_kvcache_space_bytes")) is not None:
        return memory != "None"
    return cache.get("user_specified_block_size") != "False" or cache.get("block_size") in CPU_BLOCKS
