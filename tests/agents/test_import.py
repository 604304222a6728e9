"""What the agents' package exports, and what importing it brings along."""

import json
import subprocess
import sys

import pytest

import journeyman.agents


def test_importing_the_package_loads_none_of_its_modules() -> None:
    ours = "[name for name in sys.modules if name.startswith('journeyman.agents')]"
    code = f"import json, sys, journeyman.agents; print(json.dumps({ours}))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert loaded == ["journeyman.agents"]


def test_the_exported_names_are_these() -> None:
    assert dir(journeyman.agents) == [
        "Agent",
        "Answer",
        "Assignment",
        "BASE",
        "Budget",
        "Calls",
        "Check",
        "CheckContext",
        "Crew",
        "Decision",
        "Example",
        "Finding",
        "Guardrail",
        "Limits",
        "MemoryConfig",
        "Model",
        "ModelReply",
        "ModelRequest",
        "ModelTable",
        "Permission",
        "Permissions",
        "Plan",
        "Report",
        "Spent",
        "StreamingModel",
        "Used",
        "Verifier",
        "load_crew",
    ]
    assert all(getattr(journeyman.agents, name) is not None for name in dir(journeyman.agents))


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Agnet'"):
        _ = journeyman.agents.Agnet  # type: ignore[attr-defined]
