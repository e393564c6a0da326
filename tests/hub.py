"""A hub to stand in: the endpoints that huggingface_hub calls, and the faults that a real one has.

The real client talks to it. What it answers follows the hub's own (HEAD and GET of `resolve`, with
ranges, redirects to another host, gates and errors by header; `api/models`).
"""

import hashlib
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"


@dataclass
class Faults:
    """What goes wrong; each is used up as it happens."""

    cut_at: list[int] = field(default_factory=list)
    """Bytes of a body after which the connection breaks, one for each GET."""
    statuses: list[int] = field(default_factory=list)
    """Answered instead, one for each GET."""
    questions: list[int | str] = field(default_factory=list)
    """The same for each request that is about a file and not for it: a status, or `cut`."""
    retry_after: str = "0"
    flip: int | None = None
    """This byte is sent with a bit flipped."""
    wrong_length: bool = False
    """More is sent than was said."""
    ignore_range: bool = False
    pause_s: float = 0.0
    """After each piece."""
    gated: bool = False
    redirect: bool = False
    """Bodies are at the other host."""
    loop: bool = False
    """Bodies are said to be where they were asked for."""
    piece: int = 65_536
    """Bytes that are sent at once."""
    encoding: str = ""
    """Said of the body, whatever it is."""
    range_total: int | None = None
    """Said in Content-Range instead of the file's length."""
    range_shift: int = 0
    """Added to what Content-Range says of the beginning."""


class StandIn:
    """Repositories in memory, served by two hosts: the hub and where it redirects to."""

    def __init__(self):
        self.files: dict[tuple[str, str], bytes] = {}
        self.large: set[tuple[str, str]] = set()
        self._digests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.faults = Faults()
        self.seen: list[tuple[str, str, str | None, str | None]] = []
        """Method, path, range and authorization of every request."""
        self.sent = 0
        """Bytes of bodies."""
        self.lock = threading.Lock()

    def put(self, repo, path, content, *, large=True):
        """Put a file into a repository: bytes, or a map of a file that memory need not hold."""
        self.files[repo, path] = content
        (self.large.add if large else self.large.discard)((repo, path))

    def remove(self, repo, path):
        del self.files[repo, path]
        self._digests.pop((repo, path), None)

    def digest(self, repo, path):
        content = self.files[repo, path]
        known = self._digests.get((repo, path))
        if known is None or known[0] is not content:
            if (repo, path) in self.large:
                found = hashlib.sha256(content)
            else:
                found = hashlib.sha1(b"blob %d\0" % len(content))
                found.update(content)
            known = self._digests[repo, path] = (content, found.hexdigest())
        return known[1]

    def asked(self, method="GET", host="resolve"):
        return [each for each in self.seen if each[0] == method and host in each[1]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn
    elsewhere: str

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(is_head=True)

    def do_GET(self):
        self.answer(is_head=False)

    def answer(self, *, is_head):
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        with self.hub.lock:
            self.hub.seen.append((self.command, path, headers["range"], headers["authorization"]))
        is_question = is_head or path.startswith("/api/models/")
        if is_question and self.hub.faults.questions:
            return self.fail(self.hub.faults.questions.pop(0))
        if path.startswith("/api/models/"):
            return self.model_info(path.removeprefix("/api/models/"))
        owner, name, how, revision, *rest = path.lstrip("/").split("/")
        assert how in {"resolve", "elsewhere"}
        return self.file(f"{owner}/{name}", "/".join(rest), how, revision, is_head=is_head)

    def fail(self, fault):
        if fault != "cut":
            return self.refuse(fault, retry_after=self.hub.faults.retry_after)
        self.close_connection = True
        self.connection.close()
        return None

    def refuse(self, status, code=None, **more):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", f"the hub's own words for {code}")
        for key, value in more.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def model_info(self, repo):
        repo = repo.partition("/revision/")[0]
        names = sorted(path for owner, path in self.hub.files if owner == repo)
        if not names:
            return self.refuse(404, "RepoNotFound")
        found = {
            "id": repo,
            "sha": COMMIT,
            "private": False,
            "gated": False,
            "siblings": [{"rfilename": name} for name in names],
        }
        content = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def refusal(self, repo, path, how, revision):
        """Return the status and code for what is not there, or not for this caller."""
        hub = self.hub
        if how == "resolve":
            if hub.faults.gated and self.headers["authorization"] != f"Bearer {TOKEN}":
                return 401, "GatedRepo"
            if all(owner != repo for owner, _ in hub.files):
                return 401, "RepoNotFound"
            if revision not in {COMMIT, "main"}:
                return 404, "RevisionNotFound"
        return None if (repo, path) in hub.files else (404, "EntryNotFound")

    def file(self, repo, path, how, revision, *, is_head):
        hub, faults = self.hub, self.hub.faults
        refusal = self.refusal(repo, path, how, revision)
        if refusal:
            return self.refuse(*refusal)
        content = hub.files[repo, path]
        facts = {"X-Repo-Commit": COMMIT, "ETag": f'"{hub.digest(repo, path)}"'}
        if (repo, path) in hub.large:
            facts |= {"X-Linked-ETag": f'"{hub.digest(repo, path)}"'}
            facts |= {"X-Linked-Size": str(len(content))}
        if not is_head and faults.statuses:
            return self.refuse(faults.statuses.pop(0), retry_after=faults.retry_after)
        if faults.loop and not is_head:
            return self.refuse(302, location=self.path)
        if faults.redirect and how == "resolve" and (repo, path) in hub.large:
            self.send_response(302)
            for key, value in facts.items():
                self.send_header(key, value)
            self.send_header("Location", f"{self.elsewhere}/{repo}/elsewhere/{COMMIT}/{path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return self.body(content, facts, is_head=is_head)

    def body(self, content, facts, *, is_head):
        faults, begin, end = self.hub.faults, 0, len(content)
        asked = self.headers["range"]
        if asked and not faults.ignore_range:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(end, int(last) + 1 if last else end)
            if begin >= len(content):
                return self.refuse(416)
            self.send_response(206)
            total = len(content) if faults.range_total is None else faults.range_total
            said = begin + faults.range_shift
            self.send_header("Content-Range", f"bytes {said}-{end - 1}/{total}")
        else:
            self.send_response(200)
        for key, value in facts.items():
            self.send_header(key, value)
        self.send_header("Accept-Ranges", "bytes")
        if faults.wrong_length and not is_head:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            more = content[begin:end] + b"and more"
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(more), more))
            return None
        self.send_header("Content-Length", str(end - begin))
        if faults.encoding and not is_head:
            self.send_header("Content-Encoding", faults.encoding)
        self.end_headers()
        if not is_head:
            self.send(content, begin, end)
        return None

    def send(self, content, begin, end):
        faults = self.hub.faults
        cut = faults.cut_at.pop(0) if faults.cut_at else None
        sent = 0
        while begin < end:
            piece = bytearray(content[begin : min(end, begin + faults.piece)])
            if cut is not None and sent + len(piece) > cut:
                piece = piece[: max(0, cut - sent)]
            if faults.flip is not None and begin <= faults.flip < begin + len(piece):
                piece[faults.flip - begin] ^= 1
                faults.flip = None
            try:
                self.wfile.write(piece)
            except OSError:
                return
            sent += len(piece)
            begin += len(piece)
            with self.hub.lock:
                self.hub.sent += len(piece)
            if cut is not None and sent >= cut:
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            if faults.pause_s:
                time.sleep(faults.pause_s)


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A connection that was cut on purpose is no error."""


@contextmanager
def standing_in():
    """Yield a hub and its address, until the block ends."""
    hub = StandIn()
    servers = []
    try:
        address = ""
        for _ in range(2):
            kind = type("Bound", (Handler,), {"hub": hub, "elsewhere": address})
            server = Quiet(("127.0.0.1", 0), kind)
            # It looks for its end twice a second otherwise, and each test waits for that.
            threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
            servers.append(server)
            # By another name than the hub itself, so that it is another host.
            address = f"http://localhost:{server.server_port}"
        yield hub, f"http://127.0.0.1:{servers[1].server_port}"
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


SECONDS = 20.0
"""For which a test waits for what is to come."""


def until(condition) -> None:
    """Return once a condition holds.

    Raises:
        AssertionError: it does not come to hold.
    """
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
