"""Claim: `import journeyman.runtime` takes under a second, without torch. Beside it, what it leaves for later."""

import argparse
import json
import subprocess
import sys
from statistics import median

from _record import write_result

MODULES = (
    "journeyman.runtime",
    "journeyman.runtime.runtime",
    "langgraph.graph",
    "langchain_core.language_models.chat_models",
    "torch",
)
CODE = """
import json, sys, time
started = time.perf_counter()
import {module}
print(json.dumps([time.perf_counter() - started, "torch" in sys.modules]))
"""


def seconds(module: str, times: int) -> tuple[list[float], bool]:
    """Seconds of importing `module` in fresh interpreters, and whether torch came along."""
    runs = []
    for _ in range(times):
        shown = subprocess.run([sys.executable, "-c", CODE.format(module=module)], capture_output=True, check=True)
        runs.append(json.loads(shown.stdout))
    return [taken for taken, _ in runs], any(torch for _, torch in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three imports of each module instead of fifteen")
    quick = parser.parse_args().quick
    times = 3 if quick else 15
    rows = {}
    print(f"{'import':45} {'median s':>9} {'worst s':>9}  torch")
    for module in MODULES:
        taken, torch = seconds(module, times)
        rows[module] = {"median_s": round(median(taken), 4), "max_s": round(max(taken), 4), "loads_torch": torch}
        print(f"{module:45} {median(taken):9.3f} {max(taken):9.3f}  {'yes' if torch else 'no'}")
    write_result("import_time", {"imports": times, "modules": rows}, seed=None, quick=quick)


if __name__ == "__main__":
    main()
