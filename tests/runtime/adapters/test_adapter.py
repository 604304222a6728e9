"""An adapter's folder: what is whole, and what is refused before a server sees it."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.runtime.adapters.adapter import (
    CONFIG,
    PROBE,
    RECORD,
    WEIGHTS,
    Probe,
    adapter_folders,
    check_fits,
    digest_files,
    find_adapter,
    load_adapter,
    next_number,
    read_probe,
    split_policy,
)
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError

MakeAdapter = Callable[..., Path]


def refusal(folder: Path) -> str:
    with pytest.raises(AdapterError) as refused:
        load_adapter(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_whole_folder_is_loaded(make_adapter: MakeAdapter) -> None:
    folder = make_adapter("worker@8")
    adapter = load_adapter(folder)
    assert adapter.policy == "worker@8"
    assert adapter.digest == digest_files(folder)
    assert read_probe(folder).token_ids == (5, 6, 7, 8)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "worker@1").endswith(
        "worker@1: there is no such folder; `journeyman adapters list` shows what there is"
    )


@pytest.mark.parametrize("name", [RECORD, PROBE, CONFIG, WEIGHTS])
def test_a_missing_file_is_named(make_adapter: MakeAdapter, name: str) -> None:
    folder = make_adapter("worker@1")
    (folder / name).unlink()
    assert f"{name}: there is no such file" in refusal(folder)


@pytest.mark.parametrize("name", [RECORD, PROBE, CONFIG])
def test_a_file_that_is_no_json_is_named(make_adapter: MakeAdapter, name: str) -> None:
    folder = make_adapter("worker@1")
    (folder / name).write_text("{")
    assert name in refusal(folder)


@pytest.mark.parametrize("kept", [0, 4, 20])
def test_weights_cut_inside_the_header_are_truncated(make_adapter: MakeAdapter, kept: int) -> None:
    folder = make_adapter("worker@1")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:kept])
    assert "truncated inside its header" in refusal(folder)


@pytest.mark.parametrize("change", [-1, -16, 1])
def test_weights_of_another_length_than_their_header_says_are_refused(make_adapter: MakeAdapter, change: int) -> None:
    folder = make_adapter("worker@1")
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[:change] if change < 0 else weights + b"\0")
    assert f"has {len(weights) + change} bytes, its header says {len(weights)}" in refusal(folder)


@pytest.mark.parametrize("header", [b"not json", b"[1]", b'{"a": {}}', b'{"a": {"data_offsets": 3}}', b"\xff\xfe"])
def test_a_header_that_is_none_is_refused(make_adapter: MakeAdapter, header: bytes) -> None:
    folder = make_adapter("worker@1")
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)
    assert "not a safetensors file" in refusal(folder)


def test_altered_weights_are_found_by_their_digest(make_adapter: MakeAdapter) -> None:
    folder = make_adapter("worker@1")
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    assert "altered since training" in refusal(folder)


def test_a_folder_under_another_name_is_refused(make_adapter: MakeAdapter) -> None:
    folder = make_adapter("worker@1")
    assert "holds worker@1, not worker@2" in refusal(folder.rename(folder.with_name("worker@2")))


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trained biases"),
        ({"lora_bias": True}, "trained biases"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "lm_head"]}, "LoRA on lm_head"),
    ],
)
def test_a_kind_that_vllm_cannot_serve_is_refused(
    make_adapter: MakeAdapter, config: dict[str, object], kind: str
) -> None:
    assert f"can't serve an adapter with {kind}" in refusal(make_adapter("worker@1", config=config))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (("model.lm_head.lora_A.weight",), "LoRA on lm_head"),
        (("model.embed_tokens.lora_embedding_A",), "tensors other than lora_A and lora_B"),
        ((), "holds no weights"),
    ],
)
def test_tensors_that_vllm_cannot_serve_are_refused(
    make_adapter: MakeAdapter, tensors: tuple[str, ...], words: str
) -> None:
    assert words in refusal(make_adapter("worker@1", tensors=tensors))


def test_a_rank_that_differs_from_the_record_is_refused(make_adapter: MakeAdapter) -> None:
    folder = make_adapter("worker@1", rank=2, config={"rank_pattern": {"q_proj": 64}})
    assert "says rank 64" in refusal(folder)


def test_another_base_or_a_higher_rank_does_not_fit_the_server(make_adapter: MakeAdapter) -> None:
    adapter = load_adapter(make_adapter("worker@1", rank=32))
    check_fits(adapter, base_digest="b" * 64, max_rank=32)
    check_fits(adapter, base_digest=None, max_rank=64)
    with pytest.raises(AdapterError, match="trained on base model bbbbbbbbbbbb, the server has cccccccccccc"):
        check_fits(adapter, base_digest="c" * 64, max_rank=32)
    with pytest.raises(AdapterError, match="has rank 32, the server takes at most 16"):
        check_fits(adapter, base_digest="b" * 64, max_rank=16)


def test_a_probe_has_one_logprob_fewer_than_tokens(make_adapter: MakeAdapter) -> None:
    folder = make_adapter("worker@1")
    probe = read_probe(folder)
    (folder / PROBE).write_text(json.dumps({**probe.model_dump(), "base_logprobs": [0.0]}))
    assert "4 tokens need 3 logprobs of each kind" in refusal(folder)
    assert Probe.model_validate_json(probe.model_dump_json()) == probe


@pytest.mark.parametrize("policy", ["base", "worker", "worker@0", "worker@-1", "@1", "../x@1", "worker@1/..", "1@1"])
def test_only_agent_and_number_name_an_adapter(policy: str) -> None:
    with pytest.raises(AdapterError, match="names no adapter"):
        split_policy(policy)


def test_folders_come_by_agent_and_number_and_the_unfinished_stay_out(
    make_adapter: MakeAdapter, workspace: Workspace
) -> None:
    for policy in ("worker@10", "worker@9", "planner@2"):
        make_adapter(policy)
    (workspace.adapters / ".worker@11.partial").mkdir()
    assert [folder.name for folder in adapter_folders(workspace.adapters)] == ["planner@2", "worker@9", "worker@10"]
    assert [next_number(workspace.adapters, agent) for agent in ("worker", "planner", "judge")] == [11, 3, 1]
    assert next_number(workspace.root / "nowhere", "worker") == 1


def test_an_unknown_adapter_is_refused_with_those_there_are(make_adapter: MakeAdapter, workspace: Workspace) -> None:
    with pytest.raises(AdapterError, match="have: none yet"):
        find_adapter(workspace.adapters, "worker@7")
    make_adapter("worker@8")
    with pytest.raises(AdapterError, match=r"there is no adapter worker@7 in .*; have: worker@8"):
        find_adapter(workspace.adapters, "worker@7")
