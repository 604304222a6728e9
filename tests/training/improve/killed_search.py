"""A program for `test_prompting.py`: looks for a prompt until somebody kills it."""

import json
import sys
from pathlib import Path

from journeyman.agents.crew_file import load_crew
from journeyman.runtime.serving.backend import open_backend
from journeyman.runtime.workspace import Workspace
from journeyman.traces.trace import Task
from journeyman.training.improve.prompting import Prompting
from journeyman.training.methods.job import load_recipe
from journeyman.training.methods.prompt import PromptRecipe

root, crew, tasks, settings = sys.argv[1:]
recipe = load_recipe("prompt", json.loads(settings))
assert isinstance(recipe, PromptRecipe)
workspace = Workspace(Path(root))
Prompting(
    workspace,
    load_crew(Path(crew)),
    "worker",
    [Task.model_validate(row) for row in json.loads(tasks)],
    recipe,
    conditions=[Path(crew).read_text()],
    base_digest="b" * 64,
    backend=lambda: open_backend(workspace),
    source="train.jsonl",
).optimise()
