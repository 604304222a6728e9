"""Mining takes what meets the capture contract, and says of the rest why not."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from journeyman.runtime.cli import build
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import AttributeValue, Tracer
from journeyman.traces.errors import TrainingError
from journeyman.traces.labels import Label
from journeyman.traces.messages import Message
from journeyman.training.data.choosing.choose import Choosing
from journeyman.training.data.credit import Credits
from journeyman.training.data.mine import Mined, mine_sft, mine_to_file
from journeyman.training.data.samples import SFTSample, digest_samples, read_samples, sample_line
from journeyman.training.data.sft import SFTMining
from journeyman.training.data.source import MineConfig, Source

ANY = MineConfig()
QUESTION = "how many moons has Mars?"
Chat = dict[str, AttributeValue | None]


def turn(**changes: AttributeValue | None) -> Chat:
    """A model call that the server answered, whole."""
    whole: Chat = {
        a.OPERATION: "chat",
        a.AGENT_NAME: "worker",
        a.REQUEST_MODEL: "base",
        a.RESPONSE_MODEL: "base",
        a.FINISH_REASONS: ["stop"],
        a.INPUT_MESSAGES: json.dumps([{"role": "user", "parts": [{"type": "text", "content": QUESTION}]}]),
        a.OUTPUT_MESSAGES: said('{"answer": "2"}'),
        a.PROMPT_TOKEN_IDS: "[1, 2, 3]",
        a.TOKEN_IDS: "[4, 5]",
        a.LOGPROBS: "[-0.125, -0.25]",
    }
    return whole | {getattr(a, name): value for name, value in changes.items()}


def shown(**changes: AttributeValue | None) -> Chat:
    """A model call that a teacher answered."""
    bare: Chat = dict.fromkeys([a.PROMPT_TOKEN_IDS, a.TOKEN_IDS, a.LOGPROBS])
    taught: Chat = {a.REQUEST_MODEL: "teacher", a.RESPONSE_MODEL: "teacher", a.DEMONSTRATION: True}
    return turn() | bare | taught | {getattr(a, name): value for name, value in changes.items()}


def said(text: str) -> str:
    return json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": text}], "finish_reason": "stop"}])


class Runs:
    """Recorded runs, each of one worker with some turns."""

    def __init__(self, place: Workspace) -> None:
        self.store = place.store
        self._log = SpanLog(place.spans)
        self._tracer = Tracer(self._log)

    def run(
        self,
        *turns: Chat,
        status: str = "ok",
        family: str = "moons",
        score: float | str | None = None,
        purpose: str | None = "service",
        **told: str,
    ) -> str:
        """Its trace id."""
        whole: Chat = {a.OPERATION: "invoke_workflow", a.TASK_FAMILY: family, a.STATUS: "ok", a.PURPOSE: purpose}
        whole |= {getattr(a, name): value for name, value in told.items()}
        own: Chat = {a.OPERATION: "invoke_agent", a.AGENT_NAME: "worker", a.STATUS: status}
        with (
            self._tracer.span("invoke_workflow crew", parent=None, attributes=whole) as root,
            self._tracer.span("invoke_agent worker", parent=root, attributes=own) as worker,
        ):
            for chat in turns:
                with self._tracer.span("chat", parent=worker, kind="client", attributes=chat):
                    pass
        if score is not None:
            self.store.label(Label(trace_id=root.trace_id, name="score", source="test", value=score))
        return root.trace_id

    def parts(self, endings: list[str]) -> None:
        """One run, which was taken up again as often as there are more endings, with a turn in each part."""
        trace_id = None
        for number, status in enumerate(endings):
            whole: Chat = {a.OPERATION: "invoke_workflow", a.STATUS: status, a.PURPOSE: "service"}
            own: Chat = {a.OPERATION: "invoke_agent", a.AGENT_NAME: "worker", a.STATUS: status}
            with self._tracer.span("run", parent=None, attributes=whole, trace_id=trace_id) as root:
                trace_id = root.trace_id
                with (
                    self._tracer.span("invoke_agent worker", parent=root, attributes=own) as worker,
                    self._tracer.span("chat", parent=worker, attributes=turn(TOKEN_IDS=f"[4, {number}]")),
                ):
                    pass

    def mine(self, config: MineConfig = ANY, ids: list[str] | None = None) -> Mined:
        return mine_sft(Source(self.store, "worker", config, ids=ids))


@pytest.fixture
def runs(workspace: Workspace) -> Runs:
    return Runs(workspace)


def test_a_turn_of_the_server_keeps_the_servers_own_tokens(runs: Runs) -> None:
    trace_id = runs.run(turn())
    (sample,) = runs.mine().samples
    assert (sample.prompt_token_ids, sample.token_ids) == ((1, 2, 3), (4, 5))
    assert (sample.agent, sample.policy, sample.trace_id, sample.count) == ("worker", "base", trace_id, 1)


def test_token_ids_count_in_whatever_form_they_are_written(runs: Runs) -> None:
    runs.run(turn(PROMPT_TOKEN_IDS="[1,2,3]", TOKEN_IDS="[4,5]"))
    (sample,) = runs.mine().samples
    assert (sample.prompt_token_ids, sample.token_ids) == ((1, 2, 3), (4, 5))


@pytest.mark.parametrize("ids", ["[1, null]", "[1.5]", "[true]", '["1"]', "[4294967296]", "[]", "{}", "1"])
def test_what_is_no_list_of_token_ids_is_never_learned_from(runs: Runs, ids: str) -> None:
    runs.run(turn(PROMPT_TOKEN_IDS=ids), turn(TOKEN_IDS=ids), turn(LOGPROBS="[null, null]"))
    assert runs.mine().refused == {"no token ids": 2, "no logprobs": 1}


def test_a_demonstration_is_text_alone(runs: Runs) -> None:
    runs.run(shown(SYSTEM_INSTRUCTIONS=json.dumps([{"type": "text", "content": "Count."}])))
    (sample,) = runs.mine().samples
    prompt = (Message(role="system", content="Count."), Message(role="user", content=QUESTION))
    assert (sample.messages, sample.completion) == (prompt, '{"answer": "2"}')
    assert sample.token_ids is None


def test_what_breaks_the_capture_contract_is_counted_by_reason(runs: Runs) -> None:
    bare: Chat = dict.fromkeys([a.PROMPT_TOKEN_IDS, a.TOKEN_IDS, a.LOGPROBS])
    runs.run(turn(), turn() | bare, turn() | bare, shown(), turn(OUTPUT_MESSAGES='["what?"]'))
    mined = runs.mine()
    assert mined.refused == {"no token ids": 2, "messages not readable": 1}
    assert mined.turns == 2


def test_only_work_that_ended_well_is_imitated(runs: Runs) -> None:
    runs.run(turn(), status="failed")
    runs.run(turn(), status="over_budget")
    mined = runs.mine()
    assert mined.samples == ()
    assert mined.refused == {"trajectory failed": 1, "trajectory over_budget": 1}


@pytest.mark.parametrize(
    ("endings", "rows"),
    [
        (["needs_input", "ok"], 2),
        (["paused", "needs_input", "ok"], 3),
        (["needs_input", "failed"], 0),
        (["needs_input"], 0),
        (["ok", "failed"], 1),
    ],
)
def test_work_that_was_taken_up_again_ended_as_its_last_part_did(runs: Runs, endings: list[str], rows: int) -> None:
    runs.parts(endings)
    mined = runs.mine()
    assert (mined.turns, sum(mined.refused.values())) == (rows, len(endings) - rows)


def test_exact_duplicates_become_one_row_that_names_all_their_spans(runs: Runs) -> None:
    first = runs.run(shown())
    second = runs.run(shown(), shown(OUTPUT_MESSAGES=said('{"answer": "two"}')))
    mined = runs.mine()
    assert [(sample.trace_id, sample.count) for sample in mined.samples] == [(first, 2), (second, 1)]
    assert mined.turns == 3


def test_a_score_below_the_least_is_refused_and_so_is_none(runs: Runs) -> None:
    good = runs.run(turn(), score=0.9)
    runs.run(turn(), score=0.4)
    runs.run(turn())
    true = runs.run(turn(TOKEN_IDS="[9, 9]"), score=True)
    runs.run(turn(), score="good")
    mined = runs.mine(MineConfig(min_score=0.5))
    assert [sample.trace_id for sample in mined.samples] == [good, true]
    assert mined.refused == {"score below 0.5": 1, "no label score": 1, "label score is no number": 1}


def test_other_agents_policies_families_and_traces_are_passed_over_without_a_word(runs: Runs) -> None:
    wanted = runs.run(turn(AGENT_NAME="orchestrator"), turn(), shown())
    rings = runs.run(shown(), family="rings")
    runs.run(shown())
    mined = runs.mine(MineConfig(policy=("teacher",), family="moons"), ids=[wanted, rings])
    assert [sample.trace_id for sample in mined.samples] == [wanted]
    assert mined.refused == {}


def test_a_turn_whose_texts_were_left_out_is_refused_as_such(runs: Runs) -> None:
    runs.run(shown(CONTENT="digest"))
    assert runs.mine().refused == {"content not recorded": 1}


def test_the_command_writes_a_dataset_named_by_agent_and_digest(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "ws")
    _record_a_demonstration(place)
    result = CliRunner().invoke(build(), ["mine", "--agent", "worker", "-C", str(place.root), "--json"])
    printed = json.loads(result.stdout)
    path = place.datasets / f"worker-{printed['digest'][:12]}.jsonl"
    assert (printed["path"], printed["rows"], printed["refused"]) == (str(path), 1, {"call failed": 1})
    assert read_samples(path, SFTSample)[0].completion == '{"answer": "2"}'


def test_the_command_says_why_there_is_nothing_to_learn_from(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "ws")
    _record_a_demonstration(place)
    with pytest.raises(TrainingError, match=r"no turn of worker .* became a sample: no label score \(2\)"):
        CliRunner().invoke(
            build(),
            ["mine", "--agent", "worker", "--min-score", "0.5", "-C", str(place.root)],
            catch_exceptions=False,
        )


def test_the_command_says_what_setting_training_needs(workspace: Workspace) -> None:
    Runs(workspace).run(shown(), shown(CONTENT="off"))
    result = CliRunner().invoke(build(), ["mine", "--agent", "worker", "-C", str(workspace.root)])
    assert "1 rows from 1 turns; 1 turns refused" in result.stdout
    assert 'training needs the texts: set `content = "full"` in `[traces]`' in result.stderr


def test_a_file_of_rows_names_all_spans_of_each(workspace: Workspace, tmp_path: Path) -> None:
    runs = Runs(workspace)
    runs.run(shown(), shown(), turn())
    source = Source(runs.store, "worker", ANY)
    dataset = mine_to_file(SFTMining(source), tmp_path, lambda digest: f"{digest[:4]}.jsonl", Choosing(source))
    assert dataset is not None
    assert (tuple(read_samples(dataset.path)), dataset.rows) == (runs.mine().samples, 2)
    assert dataset.digest == digest_samples(runs.mine().samples)
    assert [file.name for file in tmp_path.glob("*.jsonl")] == [f"{dataset.digest[:4]}.jsonl"]


def test_a_line_is_what_its_sample_would_be_written_as(workspace: Workspace) -> None:
    runs = Runs(workspace)
    called = {"type": "tool_call", "id": "c1", "name": "search", "arguments": {"query": "Mars", "most": 1.5}}
    answered = {"type": "tool_call_response", "id": "c1", "response": "Phobos\u2028and <Deimos>"}
    prompt: Any = [
        {"role": "user", "parts": [{"type": "text", "content": 'wie viele "Monde"?\n\x00'}]},
        {"role": "assistant", "parts": [called]},
        {"role": "tool", "parts": [answered]},
    ]
    small, large = ([{"type": "text", "content": "Zähle. " * times}] for times in (1, 100))
    runs.run(
        turn(INPUT_MESSAGES=json.dumps(prompt), SYSTEM_INSTRUCTIONS=json.dumps(small)),
        shown(OUTPUT_MESSAGES=said("\u00e9 \U0001f315"), SYSTEM_INSTRUCTIONS=json.dumps(large)),
        turn(
            INPUT_MESSAGES='[{"role": "assistant", "parts": '
            '[{"type": "tool_call", "name": "f", "arguments": {"x": NaN}}]}]'
        ),
    )
    lines = list(SFTMining(Source(runs.store, "worker", ANY)))
    assert lines == [sample_line(SFTSample.model_validate_json(line)) for line in lines]
    assert [len(json.loads(line)["messages"]) for line in lines] == [4, 2, 1]


def test_what_has_no_form_in_a_file_is_refused(runs: Runs) -> None:
    runs.run(turn(OUTPUT_MESSAGES=said("\ud800")), turn())
    assert (runs.mine().turns, runs.mine().refused) == (1, {"messages not readable": 1})


def _record_a_demonstration(place: Workspace) -> None:
    """One run in which a teacher answered once and failed once."""
    log = SpanLog(place.spans)
    tracer = Tracer(log)
    whole: Chat = {a.OPERATION: "invoke_workflow", a.PURPOSE: "teach"}
    agent: Chat = {a.OPERATION: "invoke_agent", a.AGENT_NAME: "worker", a.STATUS: "ok"}
    with (
        tracer.span("invoke_workflow crew", parent=None, attributes=whole) as run,
        tracer.span("invoke_agent worker", parent=run, attributes=agent) as parent,
    ):
        with tracer.span("chat teacher", parent=parent, kind="client", attributes=shown()):
            pass
        with tracer.span("chat teacher", parent=parent, attributes=shown(OUTPUT_MESSAGES=None)) as span:
            span.fail("ModelError", "nobody demonstrated this")
    log.close()


def test_a_row_is_weighed_by_the_mean_credit_of_its_calls_and_what_is_worth_too_little_is_refused(runs: Runs) -> None:
    for _ in range(2):
        runs.run(turn())
    for number in (7, 8, 9):
        runs.run(turn(TOKEN_IDS=f"[{number}]", LOGPROBS="[-0.5]"))
    spans = [one.turns[0].span_id for one in runs.store.traces()]
    rewards = dict(zip(spans, (1.0, 0.5, 0.25, 0.0), strict=False))
    credit = Credits(rewards)
    mined = mine_sft(Source(runs.store, "worker", ANY, credit=credit))
    assert [sample.weight for sample in mined.samples] == [0.75, 0.25]
    assert mined.refused == {"credit is 0": 1, "no credit measured": 1}
    strict = mine_sft(Source(runs.store, "worker", ANY, credit=Credits(rewards, 0.75)))
    assert [sample.weight for sample in strict.samples] == [1.0]
    assert strict.refused == {"credit below 0.75": 3, "no credit measured": 1}


def test_what_a_person_wrote_is_weighed_by_no_credit(runs: Runs) -> None:
    trace_id = runs.run(turn())
    (edited,) = runs.store.get(trace_id).turns
    runs.store.label(
        Label(
            trace_id=trace_id,
            span_id=edited.span_id,
            name="edit",
            source="ann",
            source_type="human",
            value='{"answer": "two"}',
        )
    )
    (sample,) = mine_sft(Source(runs.store, "worker", ANY, credit=Credits({edited.span_id: 0.25}))).samples
    assert (sample.edited_by, sample.weight) == ("ann", 1.0)
