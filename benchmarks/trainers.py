"""Claim: a step of any method takes no more time and memory than plain TRL on the same rows: 1.05 times at most.

`grpo` is its step alone: both sides are handed the same replies with their rewards. `distill` samples as many tokens on
both sides. `prompt` and `rft` have no trainer of their own; `full` and `qlora` differ from `sft` in the weights only.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from _record import RESULTS, write_result

METHODS = ("sft", "dpo", "kto", "cpt", "distill", "grpo")
CONTENDERS = ("ours", "plain")
FULL = {"steps": 6, "batch": 8, "sentences": 6}
QUICK = {"steps": 2, "batch": 2, "sentences": 2}
PAIRS = 5
CHILD = Path(__file__).parent / "_trainer.py"


def run(method: str, contender: str, settings: dict[str, int]) -> dict[str, Any]:
    """One training in a fresh process."""
    shown = subprocess.run(
        [sys.executable, CHILD, method, contender, json.dumps(settings)], capture_output=True, text=True
    )
    if shown.returncode:
        raise SystemExit(f"{method} by {contender} failed: {shown.stderr.strip().splitlines()[-1]}")
    values: dict[str, Any] = json.loads(shown.stdout.splitlines()[-1])
    return {"method": method, "contender": contender, **values}


def pairs(settings: dict[str, int], count: int, done: Path) -> list[dict[str, Any]]:
    """Both contenders of each method in turn, `count` times; what a run that was stopped had measured is kept."""
    runs = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    for number in range(count):
        for method in METHODS:
            order = CONTENDERS if number % 2 == 0 else CONTENDERS[::-1]
            for contender in order:
                if sum((one["method"], one["contender"]) == (method, contender) for one in runs) <= number:
                    runs.append(run(method, contender, settings))
                    with done.open("a") as file:
                        file.write(json.dumps(runs[-1]) + "\n")
                    print(
                        f"{number + 1}/{count} {method:7} {contender:5} {median(runs[-1]['steps']):7.2f} s", flush=True
                    )
    return runs


def compared(runs: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """Medians over the pairs: of a step, of the whole training with its reference, and of the largest memory."""

    def ratios(value: Any) -> float:
        sides = [[value(one) for one in runs if (one["method"], one["contender"]) == (method, c)] for c in CONTENDERS]
        return float(round(median(ours / plain for ours, plain in zip(*sides, strict=True)), 3))

    ours = [median(one["steps"]) for one in runs if (one["method"], one["contender"]) == (method, "ours")]
    return {
        "name": method,
        "time_ratio": ratios(lambda one: median(one["steps"])),
        "memory_ratio": ratios(lambda one: one["peak_mb"]),
        "whole_ratio": ratios(lambda one: one["seconds"]),
        "step_seconds": round(median(ours), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one pair of two small steps, both at the same time")
    quick = parser.parse_args().quick
    if quick:
        with ThreadPoolExecutor(2) as pool:
            runs = list(pool.map(lambda one: run(one[0], one[1], QUICK), [(m, c) for m in METHODS for c in CONTENDERS]))
    else:
        done = RESULTS / ".trainers.partial.jsonl"
        runs = pairs(FULL, PAIRS, done)
    rows = [compared(runs, method) for method in METHODS]
    print(f"{'method':8} {'step':>6} {'memory':>7} {'whole':>6}   times plain TRL's")
    for row in rows:
        print(f"{row['name']:8} {row['time_ratio']:6.2f} {row['memory_ratio']:7.2f} {row['whole_ratio']:6.2f}")
    settings = QUICK if quick else FULL
    write_result("trainers", {"methods": rows, "pairs": 1 if quick else PAIRS, **settings}, seed=0, quick=quick)
    if not quick:
        done.unlink()


if __name__ == "__main__":
    main()
