"""The house: no folder of code shows more files than a reader can take in."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("traces", "tools", "agents", "runtime", "training")
MOST = {"runtime": 13}
"""Files of its own that a folder may have; elsewhere 20."""


def test_no_folder_has_more_files_than_fit_on_a_floor() -> None:
    crowded = {}
    for top in FOLDERS:
        for folder in (ROOT / top, *(path.parent for path in (ROOT / top).rglob("__init__.py"))):
            files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
            if len(files) > MOST.get(top, 20):
                crowded[str(folder.relative_to(ROOT))] = len(files)
    assert crowded == {}
