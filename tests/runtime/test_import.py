"""What importing the runtime brings along, and what it exports."""

import json
import subprocess
import sys

import journeyman.runtime


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    code = "import json, sys, journeyman.runtime; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert not {"torch", "transformers", "trl", "mlflow", "vllm", "langgraph", "langchain_core"} & set(loaded)


def test_the_runtime_never_imports_training() -> None:
    names = "', '".join(dir(journeyman.runtime))
    code = (
        "import sys, journeyman.runtime as r\n"
        f"for name in ['{names}']: getattr(r, name)\n"
        "print([m for m in sys.modules if m.startswith('journeyman.training')], 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[] False"


def test_the_exported_names_are_these() -> None:
    assert dir(journeyman.runtime) == [
        "Agent",
        "Answered",
        "Asked",
        "Budget",
        "ChatVLLM",
        "ConfigError",
        "Consent",
        "Crew",
        "CrewState",
        "Ended",
        "Event",
        "Guardrail",
        "JourneymanError",
        "Limits",
        "Memory",
        "MemoryConfig",
        "MemoryLimits",
        "ModelError",
        "NoAnswerError",
        "Origin",
        "Outcome",
        "Permission",
        "PlanMade",
        "PolicyTable",
        "Question",
        "Replay",
        "ReplyBroken",
        "ReportFiled",
        "Router",
        "RunBusyError",
        "RunRecord",
        "RunStore",
        "Runtime",
        "ScriptedModel",
        "SpentSoFar",
        "StoreError",
        "Task",
        "Token",
        "Tool",
        "ToolCalled",
        "ToolContext",
        "ToolError",
        "ToolUsed",
        "WorkerStarted",
        "find_fork",
        "load_crew",
        "tool",
    ]
    assert all(getattr(journeyman.runtime, name) is not None for name in dir(journeyman.runtime))
