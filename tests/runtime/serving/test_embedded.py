"""The embedded model's cache, and what a model may be called."""

import os
import shutil
from pathlib import Path

import pytest

from journeyman.runtime.serving.embedded import (
    EMBEDDED,
    MANIFEST,
    CachedFile,
    Manifest,
    cache_dir,
    damage,
    model_digest,
    pull_model,
    resolve_model,
)
from journeyman.traces.errors import ConfigError

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOURNEYMAN_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def prepared(cache: Path) -> Path:
    """A folder that is whole by its manifest, its files empty."""
    folder = cache / EMBEDDED
    folder.mkdir()
    names = ("config.json", "model.safetensors", "tokenizer.json")
    for name in names:
        (folder / name).touch()
    files = {name: CachedFile(size=0, sha256=EMPTY_SHA256) for name in names}
    manifest = Manifest(model=EMBEDDED, source="test", files=files)
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return folder


def test_the_cache_is_where_the_environment_says(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == cache
    monkeypatch.delenv("JOURNEYMAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_dir() == Path("/elsewhere/journeyman/models")


def test_a_whole_folder_is_not_prepared_again(prepared: Path) -> None:
    before = prepared.stat().st_ino
    assert pull_model() == pull_model(check=True) == resolve_model(EMBEDDED) == prepared
    assert prepared.stat().st_ino == before


def test_damage_is_named(prepared: Path) -> None:
    assert damage(prepared) is None
    (prepared / "config.json").write_text("x")
    assert damage(prepared) == "config.json is damaged"
    (prepared / "config.json").unlink()
    assert damage(prepared) == "config.json is missing"
    (prepared / MANIFEST).write_text("{")
    assert damage(prepared) == f"{MANIFEST} cannot be read"


def test_damage_of_the_same_size_is_found_by_check_only(prepared: Path) -> None:
    manifest = Manifest.model_validate_json((prepared / MANIFEST).read_text())
    files = manifest.files | {"config.json": CachedFile(size=0, sha256="0" * 64)}
    (prepared / MANIFEST).write_text(manifest.model_copy(update={"files": files}).model_dump_json())
    assert damage(prepared) is None
    assert damage(prepared, check=True) == "config.json is damaged"


def test_a_model_that_is_not_ready_says_what_to_run(cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"not prepared.*journeyman model pull"):
        resolve_model(EMBEDDED)


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(ConfigError, match="no weights"):
        resolve_model(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert resolve_model(str(tmp_path)) == pull_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["nothing", "./nothing", "/no/such/folder", "a/b/c", ""])
def test_a_name_that_is_no_model_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        resolve_model(name)


def test_a_hub_id_that_was_never_fetched_stays_an_id_and_cannot_be_pulled_off_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model("no-such-org/no-such-model") == "no-such-org/no-such-model"
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE=0"):
        pull_model("no-such-org/no-such-model")


def test_the_digest_is_of_weights_config_and_tokenizer_only(prepared: Path) -> None:
    before = model_digest(prepared)
    (prepared / "README.md").write_text("words")
    assert model_digest(prepared) == before
    (prepared / "tokenizer.json").write_text("{}")
    assert model_digest(prepared) != before


def test_a_folder_without_a_model_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no model"):
        model_digest(tmp_path)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        pull_model(cache=tmp_path / "file" / "models")


@pytest.mark.train
@pytest.mark.timeout(300)
def test_a_damaged_model_is_prepared_again_to_the_same_digest(embedded_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / EMBEDDED
    shutil.copytree(embedded_model, folder, copy_function=_link)
    (folder / "tokenizer.json").unlink()
    assert pull_model(cache=tmp_path) == folder
    assert damage(folder, check=True) is None
    assert model_digest(folder) == model_digest(embedded_model)
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == [EMBEDDED]


def _link(source: str, target: str) -> None:
    """A second name for a file: nothing here writes into one in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
