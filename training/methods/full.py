"""All weights: SFT of a whole model for one agent, which is then served as a model of its own, not as an adapter."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import JsonValue, model_validator

from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Config
from journeyman.training.methods.sft import SFTRecipe

BYTES = 16
"""Of memory for each weight that is trained: it, its gradient and Adam's two means, all in float32."""


class FullTable(Config):
    """Table `[full]`: all weights are trained, and none of LoRA's."""

    frozen: tuple[str, ...] = ()
    """Names of layers that stay as they are, such as `embed_tokens`."""


class FullRecipe(SFTRecipe):
    """How all weights of a model are trained: the recipe `full` of the package, or a file."""

    trainer: ClassVar = "journeyman.training.methods.trainers.full:Full"
    guards: ClassVar = frozenset({"replay", "kl"})

    method: Literal["full"] = "full"  # type: ignore[assignment]
    """How the model learns."""
    full: FullTable = FullTable()

    @model_validator(mode="before")
    @classmethod
    def _no_adapter(cls, values: Any) -> Any:
        if isinstance(values, dict) and "lora" in values:
            raise ValueError("lora: all weights are trained, so there is no adapter: leave it out, or use recipe sft")
        return values

    @property
    def rank(self) -> int:
        return 0

    @property
    def told(self) -> dict[str, JsonValue]:
        return {"full.frozen": list(self.full.frozen)}

    def notice(self, base_model: Path, workspace: Workspace) -> str:
        """What training and serving it cost in memory, beside what the workspace's server holds."""
        bytes_ = sum(path.stat().st_size for path in base_model.glob("*.safetensors"))
        weights = bytes_ / 2  # Of two bytes each, as models are published.
        server = workspace.config.server
        serving = f"{bytes_ / 1e9:.2f} GB of weights and a KV cache of {server.kv_cache_gb:g} GiB"
        return (
            f"all weights: training takes about {weights * BYTES / 1e9:.1f} GB; the result is served as a model of its "
            f"own, with {serving}, beside what the server holds for {server.model}"
        )
