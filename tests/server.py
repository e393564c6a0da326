"""A really started server: `python -m appliance serve` in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import msgspec

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0
QUICK = {"GIGAROUTER_ENGINE_CALIBRATE": "false"}
"""Measuring the machine takes seconds at each start; tests of it ask for it."""
EMBED = "sentence-transformers/all-MiniLM-L6-v2"
RERANK = "gigarouter/starter-rerank"


def child_of(pid: int) -> int | None:
    """Return the process that another one started first, if it has any."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    except (OSError, IndexError):
        return None


def is_over(pid: int | str) -> bool:
    """Say whether a process ended; in a container nobody may take note of it."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """Start it, call it, stop or kill it; the data directory outlives the process."""

    data_dir: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | subprocess.Popen[str] | None" = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.data_dir.with_name(self.data_dir.name + ".log")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(
        self, *flags: str, env: dict[str, str] | None = None, supervise: bool = False
    ) -> "Server":
        """Run the server and return once it answers and its first models are loaded.

        Without `supervise` it is one process, so that a test that kills it has killed it.
        """
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "appliance",
                    "serve",
                    "--data-dir",
                    str(self.data_dir),
                    "--port",
                    str(self.port),
                    *(() if supervise else ("--no-supervise",)),
                    *flags,
                ],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, **QUICK, **(env or {})},
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                # A bare socket: a client for each try would take the starting server's cores.
                with socket.create_connection(("127.0.0.1", self.port), 5):
                    pass
                health = httpx2.get(f"{self.url}/health", timeout=5)
                if health.status_code == 200 and not health.json().get("starting"):
                    return self
            except (OSError, httpx2.TransportError):
                pass
            time.sleep(0.02)
        message = f"the server did not start: {self.log.read_text()[-2000:]}"
        raise AssertionError(message)

    def start_read(self, *flags: str) -> list[str]:
        """Run the server as a person would, and return what it wrote until it listens."""
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "appliance", "serve", "--fake", *flags),
                *("--data-dir", str(self.data_dir), "--port", str(self.port)),
            ],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = []
        for line in self.process.stderr or ():
            lines.append(line)
            if "listening on" in line:
                break
        return lines

    def stop(self, timeout: float = 40.0) -> int:
        """Send SIGTERM and return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this server's data directory."""
        return subprocess.run(
            [sys.executable, "-m", "appliance", *arguments, "--data-dir", str(self.data_dir)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def admin(self) -> httpx2.Client:
        """Return a client of the admin API."""
        token = (self.data_dir / "admin.token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        return httpx2.Client(base_url=f"{self.url}/admin/v1", headers=headers, timeout=30)

    def held(self) -> int:
        """Return how many prices are reserved; of clients that left not before their calls end."""
        deadline = time.monotonic() + 10
        while True:
            with self.admin() as client:
                text = client.get(f"{self.url}/metrics").text
            [line] = [row for row in text.splitlines() if row.startswith("gigarouter_holds_open ")]
            holds = int(float(line.split()[1]))
            if not holds or time.monotonic() > deadline:
                return holds
            time.sleep(0.05)

    def mint(self, name: str = "test", **order: object) -> dict[str, object]:
        """Mint a key through the admin API; `credit` defaults to unlimited."""
        with self.admin() as client:
            answer = client.post("/keys", json={"name": name, "credit": "unlimited", **order})
        assert answer.status_code == 201, answer.text
        return dict(msgspec.json.decode(answer.content))

    def client(self, key: str | None = None, **order: object) -> httpx2.Client:
        """Return a client with a key of its own."""
        secret = key or str(self.mint(**order)["key"])
        return httpx2.Client(
            base_url=self.url, headers={"authorization": f"Bearer {secret}"}, timeout=120
        )
