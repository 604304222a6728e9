"""A training job, whatever its method."""

import subprocess
import sys

import pytest

from journeyman.traces.errors import ConfigError
from journeyman.training.methods.recipes.known import METHODS, load_recipe


def test_a_trainer_drags_in_neither_the_gate_nor_torch() -> None:
    script = (
        "import sys, journeyman.training.methods.job\n"
        "print(sorted(name for name in sys.modules if 'evaluation.gate' in name or name in ('torch', 'mlflow')))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=f"unknown method 'magic'; have {', '.join(METHODS)}"):
        load_recipe("sft", {"method": "magic"})
