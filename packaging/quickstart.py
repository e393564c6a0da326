"""Quickstart: start a server, mint a key, embed and rerank over HTTP, and show what it cost.

Run by `quickstart.sh`, which has made the environment. Uses the command line as a person would.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

EMBED = "sentence-transformers/all-MiniLM-L6-v2"
RERANK = "gigarouter/starter-rerank"
TEXTS = ["A man is eating food.", "A man is eating a piece of bread.", "The sky is blue today."]
QUERY = "how do I reset my password"
DOCUMENTS = [
    "Billing FAQ: invoices are sent on the first of every month.",
    "Password reset steps: open Settings, choose Security, then Reset password.",
    "Our office is closed on public holidays.",
]
START_SECONDS = 60
CREDIT = "1"


def gigarouter(*arguments: str) -> Any:
    """Run a command and return the JSON document it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance", *arguments, "--json"],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def running_url(data: Path) -> str | None:
    """Return the address of the server that already runs, if one answers."""
    try:
        note = json.loads((data / "server.json").read_text())
        if note["pid"] != int((data / "lock").read_text()):
            return None  # left by a server that was killed
        url = str(note["url"])
        httpx2.get(f"{url}/health", timeout=5).raise_for_status()
    except (OSError, ValueError, KeyError, httpx2.HTTPError):
        return None
    return url


def start(data: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a server that outlives this script; return its address."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = data / "server.log"
    log.touch(mode=0o600)
    with log.open("ab") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "appliance", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        url = running_url(data)
        if url is not None:
            return url, server
        time.sleep(0.1)
    sys.exit(f"the server did not start; {log} ends with:\n{log.read_text()[-800:]}")


def show_embeddings(client: httpx2.Client) -> None:
    answer = client.post("/v1/embeddings", json={"model": EMBED, "input": TEXTS}).raise_for_status()
    body = answer.json()
    vectors = [item["embedding"] for item in body["data"]]
    print(f"\nPOST /v1/embeddings   {body['model']}")
    for text, vector in zip(TEXTS, vectors, strict=True):
        shown = ", ".join(f"{number:+.4f}" for number in vector[:4])
        cosine = sum(a * b for a, b in zip(vectors[0], vector, strict=True))
        print(f"  [{shown}, … {len(vector)}]  cosine {cosine:.3f}  {text}")
    show_bill(answer, f"{body['usage']['prompt_tokens']} tokens")


def show_ranking(client: httpx2.Client) -> None:
    body = {"model": RERANK, "query": QUERY, "documents": DOCUMENTS}
    answer = client.post("/v1/rerank", json=body).raise_for_status()
    print(f"\nPOST /v1/rerank   {RERANK}   query: {QUERY}")
    for result in answer.json()["results"]:
        print(f"  {result['relevance_score']:.3f}  {DOCUMENTS[result['index']]}")
    show_bill(answer, f"{len(DOCUMENTS)} documents")


def show_bill(answer: httpx2.Response, units: str) -> None:
    cost, balance = answer.headers["x-cost"], answer.headers["x-balance"]
    print(f"  charged {cost} credits for {units}; balance {balance} credits (1 credit = 1 USD)")


def show_snippets(url: str, key: str) -> None:
    print(f"""
Base URL  {url}/v1
Key       {key}   (shown this once)

curl {url}/v1/embeddings -H "Authorization: Bearer {key}" \\
  -d '{{"model": "all-minilm-l6-v2", "input": "hello world"}}'

from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
print(client.embeddings.create(model="all-minilm-l6-v2", input="hello world").data[0].embedding[:4])
""")


def main() -> None:
    parser = argparse.ArgumentParser(description="Start a server and try it.")
    parser.add_argument("--once", action="store_true", help="stop the server at the end")
    options = parser.parse_args()
    data = Path(os.environ["GIGAROUTER_DATA_DIR"])
    url, server = running_url(data), None
    if url is None:
        print("Starting a server …", flush=True)
        url, server = start(data)
    print(f"The server answers at {url} (data in {data}).")
    try:
        try_it(url)
    finally:
        if options.once and server is not None:
            server.terminate()
            print(f"Stopped the server (exit code {server.wait(60)}).")
    if not options.once or server is None:
        pid = json.loads((data / "server.json").read_text())["pid"]
        print(f"The server keeps running. Stop it with: kill {pid}")


def try_it(url: str) -> None:
    key = gigarouter("keys", "mint", "quickstart", "--credit", CREDIT)
    headers = {"authorization": f"Bearer {key['key']}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
        show_embeddings(client)
        show_ranking(client)
    show_snippets(url, key["key"])


if __name__ == "__main__":
    main()
