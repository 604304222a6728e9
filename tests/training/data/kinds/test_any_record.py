"""Whatever is recorded, in whatever order: a pair's sides share their prompt, and nothing held out gets into a row."""

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from journeyman.traces.trace import Task
from journeyman.training.data.choosing.choose import Choosing
from journeyman.training.data.mine import KINDS, mine_to_file
from journeyman.training.data.samples import AnySample, DocumentSample, Kind, PreferenceSample, read_samples
from journeyman.training.data.tasks.heldout import HeldOut

TASKS = ("How high is the tallest hill of the island?", "Which river runs through the capital city?")
HELD_OUT = "Name every lake that the two provinces share."
NEAR = "Name every lake which the two provinces share."
FROM_RECORD: tuple[Kind, ...] = ("sft", "preference", "kto", "prompts")

RUNS = 24


def recorded(chance: random.Random) -> dict[str, Any]:
    """What a run is like. Hypothesis' own choices are too much alike for replies to branch."""
    return {
        "turns": [
            (chance.choice("abc"), chance.random() < 0.8, chance.random() < 0.9) for _ in range(chance.randint(1, 3))
        ],
        "task": chance.choice([*TASKS, *TASKS, HELD_OUT, NEAR]),
        "goal": chance.choice([None, "go on with your part"]),
        "purpose": chance.choice([*["service", "rollout", "replay"] * 3, "gate", None]),
        "score": chance.choice([0.0, 0.5, 1.0, 0.0, 1.0, None]),
        "status": chance.choice([*["ok"] * 6, "failed", None]),
        "policy": chance.choice(["base", "worker@1"]),
        "original": chance.randint(-1, 2),
        "edited": chance.random() < 0.05,
    }


def chats(one: dict[str, Any], chat: Any) -> Iterator[dict[str, Any]]:
    """Each turn goes on from the one before, or complains of it."""
    prompt: tuple[str, ...] = (one["goal"] or one["task"],)
    for reply, usable, known in one["turns"]:
        more = {} if known else {"LOGPROBS": None}
        yield chat(reply, *prompt, failed=not usable, policy=one["policy"], **more)
        prompt = (f"{prompt[0]}\n\nNot usable.",) if len(prompt) == 1 and not usable else (*prompt, reply, "go on")


class Recorded(NamedTuple):
    forbidden: set[str]
    """Spans of which nothing may be learned."""
    replays: set[str]
    prompts: dict[str, tuple[int, ...]]
    """Of each span, in tokens."""


def record(runs: Any, written: list[dict[str, Any]], chat: Any) -> Recorded:
    forbidden, replays, prompts = Recorded(set(), set(), {})
    known: list[tuple[str, bool, str, str | None]] = []
    for one in written:
        original = None if one["original"] < 0 or not known else known[one["original"] % len(known)]
        replay = one["purpose"] == "replay" and original is not None
        if replay and original is not None:
            one["task"], one["goal"] = original[2:]
        asked = list(chats(one, chat))
        told = {name: one[name] for name in ("purpose", "score", "status", "task")}
        trace_id, spans = runs.run(*asked, **told, replay_of=original[0] if replay and original else None)
        held_out = one["task"] in (HELD_OUT, NEAR) or one["purpose"] in ("gate", None)
        held_out |= one["purpose"] == "replay" and (original is None or original[1])
        replays |= {trace_id} if one["purpose"] == "replay" else set()
        known.append((trace_id, held_out or one["purpose"] == "replay", one["task"], one["goal"]))
        for span, turn in zip(spans, asked, strict=True):
            prompts[span] = tuple(map(ord, "".join(texts_of(turn))))
            forbidden |= {span} if held_out else set()
            if one["edited"]:
                runs.label(trace_id, "edit", "better", span, source_type="human")
    runs.close()
    return Recorded(forbidden, replays, prompts)


def texts_of(turn: dict[str, Any]) -> Iterator[str]:
    for message in json.loads(turn["gen_ai.input.messages"]):
        yield message["parts"][0]["content"]


def mined(runs: Any, kind: Kind, folder: Path) -> list[AnySample]:
    held_out = HeldOut({"gate": [Task(id="g", prompt=HELD_OUT)]}, 0.7)
    source = runs.source(held_out=held_out)
    dataset = mine_to_file(KINDS[kind](source), folder, lambda digest: f"{kind}.jsonl", Choosing(source))
    return [] if dataset is None else read_samples(dataset.path)


def check_prompt(pair: PreferenceSample, prompts: dict[str, tuple[int, ...]]) -> None:
    shared = pair.prompt_token_ids
    assert shared is not None
    assert {prompts[span] for span in pair.rejected.span_ids} == {shared}
    for span in pair.chosen.span_ids:
        # What was accepted after a complaint was sampled behind it.
        assert prompts[span][: len(shared)] == shared
        assert prompts[span] == shared or pair.origin == "complaint"


@pytest.mark.timeout(300)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_sides_share_their_prompt_and_nothing_held_out_gets_in(seed: int, make_runs: Any, chat: Any) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        runs = make_runs(Path(folder) / "ws", chance)
        forbidden, replays, prompts = record(runs, [recorded(chance) for _ in range(RUNS)], chat)
        for kind in FROM_RECORD:
            for row in mined(runs, kind, Path(folder)):
                assert not isinstance(row, DocumentSample)
                assert forbidden.isdisjoint(row.span_ids)
                if isinstance(row, PreferenceSample):
                    event(row.origin)
                    check_prompt(row, prompts)
                else:
                    assert row.trace_id not in replays
