"""Settings: what the operator chose, from a file, the environment and flags, in that order.

Owns every read of the environment.
"""

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
import platformdirs

from appliance.core.errors import InvalidSettings
from appliance.core.redaction import conceal
from appliance.injected_variables import injected

PREFIX = "GIGAROUTER_"
RENAMED = {"engine.lanes": "engine.workers", "engine.bin_tokens": "engine.max_batch_tokens"}
"""Settings by their old names, which are accepted until version 0.3."""
DATA_DIR = "GIGAROUTER_DATA_DIR"
BENCH_KEYS = {
    "--key": "GIGAROUTER_BENCH_KEY",
    "--against-key": "GIGAROUTER_BENCH_AGAINST_KEY",
    "embed --key": "GIGAROUTER_KEY",
}
"""Variables that hold keys for options of `gigarouter bench` and `embed`; they are no settings."""
KERNELS = "GIGAROUTER_KERNELS"
"""Variable that the engine's library reads: which of its kernels it uses, for comparisons."""
KERNEL_NAMES = ("amx", "avx512", "avx2", "neon", "none")
"""Its values, the widest first; the last: llama.cpp's own."""
CONFIG_FILE = "config.toml"

HostName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,253}\Z")]
Origin = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/\s?#]+\Z")]
LISTS = {"hosts", "trusted_proxies", "default_models", "cors_origins"}
"""Settings that are lists: separated by commas in the environment."""
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
TokenIds = Literal["auto", "reject", "cl100k_base", "o200k_base", "own"]


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


class BooksSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[books]`: what is kept of calls that were charged."""

    keep_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 0
    """How many whole days each call keeps its row; 0: for ever. The sums of each day, key and model
    stay."""


class HubSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[hub]`: where models are fetched from; Hugging Face's own variables count too."""

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
    """Tokens of one batch."""
    flash_attention: Literal["auto", "on", "off"] = "auto"
    cache_mb: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Megabytes of the cache of vectors, for repeated texts; 0: no cache."""
    memory_mb: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 0
    """What all loaded models together may take; 0: three quarters of the memory
    that this process may use, its container's limit included."""
    idle_s: Annotated[int, msgspec.Meta(ge=0, le=31_536_000)] = 0
    """How long a model without calls stays in memory; 0: until another model needs the memory."""
    isolation: Literal["auto", "process", "none"] = "auto"
    """Which models are computed in processes of their own, whose death ends no other model: those
    whose files did not come with the program (auto), all of them, or none."""


Endpoint = Annotated[str, msgspec.Meta(pattern=r"^(https?://\S+)?$", max_length=500)]
"""A URL, or nothing."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an operator can choose; with the defaults only this machine is served."""

    host: str = "127.0.0.1"
    """Address to bind, or a name of one. All but loopback needs `lan` and at least one key."""
    port: Port = 8642
    hosts: tuple[HostName, ...] = ()
    """Other names that the server is called by, in `Host`; addresses and this machine's own name
    are known. A page that lets a name of its own point here is refused by them."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose `X-Forwarded-For` counts."""
    lan: bool = False
    """True: other machines may reach the server; `host` alone does not open it."""
    insecure_http: bool = False
    """True: they may do so without TLS. Keys and texts then travel readable."""
    log_format: Literal["text", "json"] = "text"
    access_log: bool = False
    """True: the log has a line for each call, with everything about it but its content."""
    otlp_endpoint: Endpoint = ""
    """Base URL of an OpenTelemetry collector that spans of calls are sent to, by HTTP; empty: none
    are made. Needs the extra `otel`."""
    threads: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    """Compute threads of one engine; 0: all cores that this process may use, by its
    affinity and its container's CPU quota."""
    supervise: bool = True
    """False: no second process starts the server again when it dies."""
    restart_pause_s: Annotated[float, msgspec.Meta(ge=0, le=30)] = 0.5
    """Seconds before the second start in five minutes; doubled for each further one, to 30."""
    batch_delay_s: Annotated[int, msgspec.Meta(ge=0, le=240)] = 0
    """How long a call of the batch tier waits before it takes its turn, on an idle machine too: who
    needs an answer sooner pays the realtime price."""
    default_wait_s: Annotated[int, msgspec.Meta(ge=0, le=60)] = 30
    """Seconds that a call without `Prefer: wait` waits for its model to load: many clients take
    a 503 for the end. 0: it is answered 503 at once."""
    default_models: tuple[str, ...] = ()
    """Models for calls that name none, the first that is here of each task; without them the only
    one that is here."""
    daily_budget_status: Literal[402, 429] = 429
    """What a key whose daily budget is used up is answered: 402 has no `Retry-After`, which makes
    some clients sleep."""
    cors_origins: tuple[Origin, ...] = ()
    """Origins of pages that may call the server from a browser, with a key of their own."""
    token_ids: TokenIds = "auto"  # noqa: S105 - tokens of texts, no secret
    """What token ids are that a client sends instead of texts: of a vocabulary of OpenAI's, the
    model's own, or refused; auto: cl100k_base where its vocabulary is found, else refused."""
    tiktoken_dir: str = ""
    """A folder with such vocabularies, as tiktoken caches them; empty: the usual places."""
    fake_engine: bool = False
    """True: vectors are made up from the text; for trying clients and for tests."""
    failpoint: str = ""
    """A failpoint at which the process kills itself, like `after_commit:3`; for tests alone."""
    engine: EngineSettings = EngineSettings()
    backup: BackupSettings = BackupSettings()
    books: BooksSettings = BooksSettings()
    hub: HubSettings = HubSettings()
    admin: AdminSettings = AdminSettings()
    tls: TlsSettings = TlsSettings()


def data_dir(flag: Path | None) -> Path:
    """Return the data directory: the flag, else the environment's, else this user's own.

    Raises:
        InvalidSettings: the environment's is set and empty, which would be the working directory.
    """
    if flag is not None:
        return flag.absolute()
    chosen = os.environ.get(DATA_DIR)
    if chosen is None:
        return Path(platformdirs.user_data_dir("gigarouter", appauthor=False))
    if not chosen.strip():
        raise InvalidSettings("environment", DATA_DIR, "is empty; unset it or name a directory")
    return Path(chosen).absolute()


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


def notify_socket() -> str:
    """Return where systemd wants to be told how the service is; empty: nowhere."""
    return os.environ.get("NOTIFY_SOCKET", "")


def tiktoken_caches() -> list[Path]:
    """Return the folders that tiktoken's own variables name, in its order."""
    named = (os.environ.get(name) for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"))
    return [Path(folder) for folder in named if folder]


def prepare_native_library() -> None:
    """Set what llama.cpp and OpenMP read from the environment when they are loaded.

    When llama.cpp aborts it would fork a debugger, and a fork would share our database. OpenMP's
    threads would spin at every barrier for long; on a machine that does anything else they then
    wait for cores that others hold (measured on two busy cores: p99 of one short text 1.1 s, and
    0.05 s with a short spin). The policy is `active` all the same: as soon as libgomp manages more
    threads than there are cores, which two contexts do, it spins for the smaller of this count and
    a thousand under `active`, and not at all under `passive`; then each of some hundred barriers
    of a call alone sleeps and wakes (one short text on two cores: 12.8 to 14.3 ms, and 7.5 to 8.5
    under `active`; beside a process that burns a core 16.5 to 18.5 and 12.1 to 13.8).
    """
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "active")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def keep_numpy_single_threaded() -> None:
    """Keep numpy from starting a thread for each core, before it is imported.

    Nothing here multiplies large matrices with it, and its threads spin for a while when they are
    started: an eighth of what a model's own process takes until it computes.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


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
    conceal(settings.hub.token)
    given = {key: value for key, value in flags.items() if value is not None}
    settings = _overlay(settings, given, source="command line")
    if not settings.host.strip():
        raise InvalidSettings("settings", "host", "is empty; the default is 127.0.0.1")
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
        settings = msgspec.convert(tree, Settings, strict=strict)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        raise InvalidSettings(source, where.rstrip("`") or "settings", reason) from None
    _require_networks(source, settings.trusted_proxies)
    return settings


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


def connection_variables() -> dict[str, str]:
    """Return the variables that name proxies and certificates, as they are spelt.

    A proxy's address can hold a password.
    """
    names = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE"}
    return {name: value for name, value in os.environ.items() if value and name.upper() in names}


def bench_key(option: str) -> str | None:
    """Return the key that the environment holds for an option of a command, if any."""
    return os.environ.get(BENCH_KEYS[option]) or None


def _from_environment() -> dict[str, Any]:
    known = {_variable(name): name for name in names()}
    known |= {_variable(old): new for old, new in RENAMED.items()}
    ignored = {DATA_DIR, KERNELS, *BENCH_KEYS.values(), *injected_variables()}
    if os.environ.get(KERNELS, "none") not in KERNEL_NAMES:
        raise InvalidSettings("environment", KERNELS, f"is one of {', '.join(KERNEL_NAMES)}")
    found: dict[str, Any] = {}
    for variable, value in os.environ.items():
        if not variable.startswith(PREFIX) or variable in ignored:
            continue
        if variable not in known:
            raise InvalidSettings(
                "environment", variable, f"is not a setting; known: {', '.join(sorted(known))}"
            )
        name = known[variable]
        found[name] = _listed(value) if name in LISTS else value
    return found


def _listed(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def _require_networks(source: str, texts: tuple[str, ...]) -> None:
    for text in texts:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise InvalidSettings(
                source, "trusted_proxies", f"{text!r} is no address and no network"
            ) from None


def injected_variables() -> list[str]:
    """Return the variables with our prefix that Kubernetes or Docker set for a service, sorted.

    They are ignored. `GIGAROUTER_PORT` is one of them only while it holds a URL.
    """
    return injected(os.environ, PREFIX)


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
