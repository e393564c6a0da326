"""Settings: what the operator chose, from a file, the environment and flags, in that order.

Owns every read of the environment.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
import platformdirs

from appliance.core.errors import InvalidSettings

PREFIX = "GIGAROUTER_"
RENAMED = {"engine.lanes": "engine.workers", "engine.bin_tokens": "engine.max_batch_tokens"}
"""Settings by their old names, which are accepted until version 0.3."""
DATA_DIR = "GIGAROUTER_DATA_DIR"
CONFIG_FILE = "config.toml"

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class AdminSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[admin]`: the operator's own API."""

    allow_remote: bool = False
    """False: the admin API answers only on loopback, whatever the server binds."""


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[tls]`: both or neither."""

    cert: str = ""
    """Path of a PEM certificate chain; empty: plain HTTP."""
    key: str = ""
    """Path of its PKCS#8 private key."""


class BackupSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[backup]`: copies of the database that the server makes by itself, into `backups/`."""

    every_h: Annotated[int, msgspec.Meta(ge=0, le=8_760)] = 24
    """Hours between two; 0: none is made."""
    keep: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 7
    """How many are kept; older ones are removed."""


class HubSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[hub]`: where models are fetched from; Hugging Face's own variables are heeded too."""

    endpoint: Annotated[str, msgspec.Meta(pattern=r"^https?://[^/\s?#]+[^\s?#]*\Z")] = (
        "https://huggingface.co"
    )
    """Also `HF_ENDPOINT`."""
    token: str = ""
    """For gated and private repositories. Also `HF_TOKEN`, or what `hf auth login` keeps."""
    offline: bool = False
    """True: nothing is fetched. Also `HF_HUB_OFFLINE`."""


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[engine]`: how models are spread over the cores; a model's first load measures the zeros."""

    calibrate: bool = True
    """False: what is not set here has a default instead of being measured."""
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    """Contexts of one model, each on a thread of its own."""
    max_batch_tokens: Annotated[int, msgspec.Meta(ge=0, le=65_536)] = 0
    """Tokens at which a call of the engine is closed."""
    flash_attention: Literal["auto", "on", "off"] = "auto"
    cache_mb: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Memory for vectors of texts that come again; 0: none is kept."""
    memory_mb: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 0
    """What all loaded models together may take; 0: three quarters of the machine's memory."""
    idle_s: Annotated[int, msgspec.Meta(ge=0, le=31_536_000)] = 0
    """How long a model stays that nobody calls; 0: until another needs its room."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an operator can choose; the defaults serve one machine."""

    host: str = "127.0.0.1"
    """Address to bind. Anything but loopback needs at least one key."""
    port: Port = 8642
    log_format: Literal["text", "json"] = "text"
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    """Compute threads of one engine; 0: all cores that this process may use."""
    default_wait_s: Annotated[int, msgspec.Meta(ge=0, le=60)] = 0
    """How long a call to a cold model is held when it sends no `Prefer: wait`; for clients that
    cannot retry. 0: it gets 503 at once."""
    fake_engine: bool = False
    """True: vectors are made up from the text; for trying clients and for tests."""
    failpoint: str = ""
    """Where the process shall kill itself, like `after_commit:3`; for tests alone."""
    engine: EngineSettings = EngineSettings()
    backup: BackupSettings = BackupSettings()
    hub: HubSettings = HubSettings()
    admin: AdminSettings = AdminSettings()
    tls: TlsSettings = TlsSettings()


def data_dir(flag: Path | None) -> Path:
    """Return the data directory: the flag, else the environment's, else this user's own."""
    if flag is not None:
        return flag.absolute()
    chosen = os.environ.get(DATA_DIR, "")
    if chosen:
        return Path(chosen).absolute()
    return Path(platformdirs.user_data_dir("gigarouter", appauthor=False))


def cores() -> int:
    """Return how many cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def memory_bytes() -> int:
    """Return the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def resident_bytes() -> int:
    """Return the memory that this process holds; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def available_bytes() -> int:
    """Return the machine's memory that programs may still take; 0 where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0


def environment() -> dict[str, str]:
    """Return the environment for programs that we start.

    `PYTHONPATH` keeps absolute folders alone: an empty or a relative entry is the current folder,
    whose modules must not be run in the place of ours.
    """
    found = dict(os.environ)
    if "PYTHONPATH" in found:
        entries = found["PYTHONPATH"].split(os.pathsep)
        found["PYTHONPATH"] = os.pathsep.join(
            entry for entry in entries if Path(entry).is_absolute()
        )
        if not found["PYTHONPATH"]:
            del found["PYTHONPATH"]
    return found


def prepare_native_library() -> None:
    """Set what llama.cpp and OpenMP read from the environment when they are loaded.

    When llama.cpp aborts it would fork a debugger, and a fork would share our database. OpenMP's
    threads would spin at every barrier for long; on a machine that does anything else they then
    wait for cores that others hold (measured on two busy cores: p99 of one short text 1.1 s, and
    0.05 s with a short spin, which costs an idle machine nothing).
    """
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def keep_tokenizers_single_threaded() -> None:
    """Keep the tokenizers library from spreading a batch over the engine's cores.

    The environment is the library's only switch; it is read at each call.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def load(directory: Path, flags: Mapping[str, Any]) -> Settings:
    """Return the settings for a data directory.

    `flags` holds settings by their dotted name; a value of None means that the flag was not given.

    Raises:
        InvalidSettings: an unknown key or a wrong value, naming where it stands.
    """
    path = directory / CONFIG_FILE
    settings = _read_file(path)
    settings = _overlay(settings, _from_hub_variables(), source="HF_…")
    settings = _overlay(settings, _from_environment(), source=PREFIX + "…")
    given = {key: value for key, value in flags.items() if value is not None}
    settings = _overlay(settings, given, source="command line")
    if bool(settings.tls.cert) != bool(settings.tls.key):
        raise InvalidSettings(str(path), "tls", "needs both cert and key")
    return settings


def _read_file(path: Path) -> Settings:
    if not path.exists():
        return Settings()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidSettings(str(path), "file", str(error)) from None
    engine = raw.get("engine")
    if isinstance(engine, dict):
        for old, new in RENAMED.items():
            if (key := old.removeprefix("engine.")) in engine:
                engine.setdefault(new.removeprefix("engine."), engine.pop(key))
    return _convert(raw, source=str(path), strict=True)


def _overlay(settings: Settings, values: Mapping[str, Any], *, source: str) -> Settings:
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    for dotted, value in values.items():
        *parents, leaf = dotted.split(".")
        branch = tree
        for parent in parents:
            branch = branch[parent]
        branch[leaf] = value
    return _convert(tree, source=source, strict=False)


def _convert(tree: dict[str, Any], *, source: str, strict: bool) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=strict)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        raise InvalidSettings(source, where.rstrip("`") or "settings", reason) from None


def _from_hub_variables() -> dict[str, Any]:
    """Return what the hub's own variables say, as its client reads them."""
    found: dict[str, Any] = {
        name: os.environ[variable].strip()
        for variable, name in (("HF_ENDPOINT", "hub.endpoint"), ("HF_TOKEN", "hub.token"))
        if os.environ.get(variable, "").strip()
    }
    if os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in {"1", "on", "yes", "true"}:
        found["hub.offline"] = True
    return found


def _from_environment() -> dict[str, str]:
    known = {_variable(name): name for name in names()}
    known |= {_variable(old): new for old, new in RENAMED.items()}
    found = {}
    for variable, value in os.environ.items():
        if not variable.startswith(PREFIX) or variable == DATA_DIR:
            continue
        if variable not in known:
            raise InvalidSettings(
                "environment", variable, f"is not a setting; known: {', '.join(sorted(known))}"
            )
        found[known[variable]] = value
    return found


def _variable(name: str) -> str:
    return PREFIX + name.replace(".", "_").upper()


def names() -> list[str]:
    """Return the dotted name of every setting, in the order of declaration."""
    found = []
    for name, kind in get_type_hints(Settings).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            found += [f"{name}.{leaf}" for leaf in get_type_hints(kind)]
        else:
            found.append(name)
    return found


LOG_FORMATS: tuple[str, ...] = get_args(get_type_hints(Settings)["log_format"])
