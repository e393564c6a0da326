"""Unit: a server as a unit of systemd.

Owns the text of `gigarouter.service`, for the machine and for one user, what the service may do,
and how values are written so that systemd reads them as they are (systemd.syntax(7)).
"""

from collections.abc import Iterator

from appliance.service.definition import HOMES, NAME, STOP_SECONDS, TEMPORARY, Definition, Scope

UNIT = f"{NAME}.service"
MARK = "# Written by `gigarouter service install`, which replaces and removes files with this line."
DATA = "# Data: "
WATCHDOG_SECONDS = 120
"""The server gives a sign of life every 5 s; a supervisor that starts it again, between tries."""
START_SECONDS = 900
"""Until the port is served: opening large books that were cut off takes a while."""
PRIVILEGED_PORTS = 1024
CREDENTIAL = "\0"
"""Stands before the name of a file that systemd hands over; no text of a user holds it."""


def environment_file(scope: Scope) -> str:
    """Return where the file with more settings is, as systemd writes it."""
    return "/etc/gigarouter/service.env" if scope == "system" else "%E/gigarouter.env"


def quoted(word: str) -> str:
    """Return a word of a command line or a list of paths, for a command that begins with `:`."""
    text = word.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def systemd_unit(definition: Definition) -> str:
    """Return the unit's text; `definition` holds no control characters."""
    lines = [
        MARK,
        f"{DATA}{definition.data_dir}",
        *_about(definition),
        "",
        "[Service]",
        *_process(definition),
    ]
    lines += ["", *_bounds(definition), "", "[Install]"]
    lines += [
        "WantedBy=" + ("multi-user" if definition.scope == "system" else "default") + ".target"
    ]
    return "\n".join(lines) + "\n"


def data_dir_in(unit: str) -> str:
    """Return the data directory that a unit says in its comment; empty: none."""
    found = (line.removeprefix(DATA) for line in unit.splitlines() if line.startswith(DATA))
    return next(found, "")


def _about(definition: Definition) -> Iterator[str]:
    yield "[Unit]"
    yield "Description=gigarouter: embeddings and reranking behind an OpenAI-compatible API"
    if definition.scope == "system":
        # An address of the network can be bound only once it is there.
        yield "Wants=network-online.target"
        yield "After=network-online.target"
    yield "StartLimitIntervalSec=10min"
    yield "StartLimitBurst=5"


def _process(definition: Definition) -> Iterator[str]:
    yield "Type=notify"
    yield "NotifyAccess=main"
    given = definition.credentials if definition.is_dynamic else {}
    for name, path in given.items():
        literal = str(path).replace("%", "%%")
        yield f"LoadCredential={name}:{literal}"
    if definition.is_dynamic:
        # Commands of root may have left files of root's here. A folder of root's is given to the
        # service's user with all that is in it, just before the server starts.
        yield f"ExecStartPre=+chown root:root /var/lib/private/{NAME}"
    places = {name: f"{CREDENTIAL}{name}" for name in given}
    words = [
        f'"%d/{word.removeprefix(CREDENTIAL)}"' if word.startswith(CREDENTIAL) else quoted(word)
        for word in definition.command(places)
    ]
    # The colon keeps systemd from replacing variables in it.
    yield "ExecStart=:" + " ".join(words)
    yield f"EnvironmentFile=-{environment_file(definition.scope)}"
    yield f"WatchdogSec={WATCHDOG_SECONDS}"
    yield f"TimeoutStartSec={START_SECONDS}"
    yield f"TimeoutStopSec={STOP_SECONDS}"
    # The supervisor passes a signal on, and ends its server; what is left after that is killed.
    yield "KillMode=mixed"
    yield "Restart=on-failure"
    yield "RestartSec=5"
    # It refused to start, or a disk failed, and its log says why: a person must look first.
    yield "RestartPreventExitStatus=1 2"


def _bounds(definition: Definition) -> Iterator[str]:
    yield "UMask=0077"
    yield "LimitCORE=0"
    yield "NoNewPrivileges=yes"
    yield "LockPersonality=yes"
    yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"
    yield "RestrictNamespaces=yes"
    yield "RestrictRealtime=yes"
    yield "RestrictSUIDSGID=yes"
    yield "SystemCallArchitectures=native"
    yield "SystemCallFilter=@system-service"
    yield "SystemCallFilter=~@privileged"
    yield "SystemCallErrorNumber=EPERM"
    if not definition.has_gpu:
        # A graphics card's driver may compile into memory that it then executes.
        yield "MemoryDenyWriteExecute=yes"
    if definition.scope == "system":
        yield from _of_the_machine(definition)


def _of_the_machine(definition: Definition) -> Iterator[str]:
    """Yield what a user's own manager may not always do."""
    if definition.is_dynamic:
        yield "DynamicUser=yes"
        yield f"StateDirectory={NAME}"
        yield "StateDirectoryMode=0700"
    else:
        yield f"User={definition.user}"
        yield f"ReadWritePaths={quoted(str(definition.data_dir))}"
    is_low = definition.port < PRIVILEGED_PORTS
    yield f"CapabilityBoundingSet={'CAP_NET_BIND_SERVICE' if is_low else ''}"
    yield f"AmbientCapabilities={'CAP_NET_BIND_SERVICE' if is_low else ''}"
    if not is_low:
        # In a namespace of users a capability would not count for the machine's ports.
        yield "PrivateUsers=yes"
    yield "ProtectSystem=strict"
    yield f"ProtectHome={'read-only' if definition.reaches(*HOMES) else 'yes'}"
    if not definition.reaches(*TEMPORARY):
        yield "PrivateTmp=yes"
    if definition.has_gpu:
        yield "DevicePolicy=closed"
        for kind in ("nvidia", "nvidia-frontend", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
            yield f"DeviceAllow=char-{kind} rw"
    else:
        yield "PrivateDevices=yes"
    for what in ("Clock", "ControlGroups", "Hostname", "KernelLogs", "KernelModules"):
        yield f"Protect{what}=yes"
    yield "ProtectKernelTunables=yes"
    yield "ProtectProc=invisible"
    yield "RemoveIPC=yes"
    yield "KeyringMode=private"
    yield "SocketBindDeny=any"
    yield f"SocketBindAllow=tcp:{definition.port}"
