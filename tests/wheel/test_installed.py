"""The wheel alone, in a clean environment without torch, vLLM or MLflow. Run by `.ci/wheel` with unittest."""

import importlib.util
import json
import subprocess
import sys
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory


class Installed(unittest.TestCase):
    def test_a_crew_runs_with_a_scripted_model(self) -> None:
        from journeyman.runtime import Agent, Crew, Runtime, ScriptedModel

        crew = Crew(name="c", orchestrator=None, workers=(Agent(name="solo", instructions="Answer."),))
        outcome = Runtime(crew, model=ScriptedModel(['{"answer": "42"}'])).run_sync("What is six times seven?")
        self.assertEqual((outcome.status, outcome.answer), ("ok", "42"))

    def test_default_prompts_and_recipes_are_in_the_wheel(self) -> None:
        from importlib import resources

        from journeyman.agents.agent import default_instructions

        self.assertIn("JSON", default_instructions("worker"))
        self.assertTrue((resources.files("journeyman.training.methods") / "recipes" / "sft.toml").is_file())

    def test_neither_torch_nor_mlflow_comes_with_it(self) -> None:
        for name in ("torch", "vllm", "mlflow", "trl"):
            self.assertIsNone(importlib.util.find_spec(name), name)

    def test_the_command_shows_the_loop_and_says_in_one_line_what_is_missing(self) -> None:
        command = str(Path(sys.executable).with_name("journeyman"))
        shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
        for name in ("run", "traces", "mine", "train", "gate", "adapters", "server", "demo", "doctor"):
            self.assertIn(name, shown)
        with TemporaryDirectory() as folder:
            arguments = [command, "server", "start", "-C", folder]
            start = subprocess.run(arguments, capture_output=True, text=True, check=False)
            self.assertNotEqual(start.returncode, 0)
            self.assertIn("pip install", start.stderr)
            self.assertNotIn("Traceback", start.stderr)
            doctor = subprocess.run(
                [command, "doctor", "--json", "-C", folder], capture_output=True, text=True, check=False
            )
            self.assertIsInstance(json.loads(doctor.stdout), (dict, list))
