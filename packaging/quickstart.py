"""Quickstart: start a server, mint a key, embed and rerank over HTTP, and show what it cost.

Run by `quickstart.sh`, which has made the environment. Uses the command line as a person would.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2

from appliance.client.errors import DidNotStart, DidNotStop
from appliance.client.local_server import LocalServer

EMBED = "sentence-transformers/all-MiniLM-L6-v2"
RERANK = "gigarouter/starter-rerank"
TEXTS = ["A man is eating food.", "A man is eating a piece of bread.", "The sky is blue today."]
QUERY = "how do I reset my password"
DOCUMENTS = [
    "Billing FAQ: invoices are sent on the first of every month.",
    "Password reset steps: open Settings, choose Security, then Reset password.",
    "Our office is closed on public holidays.",
]
CREDIT = "1"


def gigarouter(*arguments: str) -> Any:
    """Run a command and return the JSON document it prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "appliance", *arguments, "--json"],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


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
    server = LocalServer(Path(os.environ["GIGAROUTER_DATA_DIR"]))
    note = server.note()
    try:
        if note is None:
            print("Starting a server …", flush=True)
            note = asyncio.run(server.start())
    except DidNotStart as error:
        sys.exit(f"the server did not start: {error}; the whole log is in {server.log}")
    print(f"The server answers at {note.url} (data in {server.data_dir}).")
    try:
        try_it(note.connect_url or note.url)
    finally:
        if options.once and server.started is not None:
            stop(server)
    if not options.once or server.started is None:
        print(f"The server keeps running. Stop it with: kill {note.pid}")


def stop(server: LocalServer) -> None:
    """End the server that this script started."""
    assert server.started is not None
    try:
        asyncio.run(server.stop())
    except DidNotStop as error:
        sys.exit(error.message)
    if server.started.returncode != 0:
        sys.exit(f"the server ended with exit code {server.started.returncode}; see {server.log}")
    print("Stopped the server.")


def try_it(url: str) -> None:
    key = gigarouter("keys", "mint", "quickstart", "--credit", CREDIT)
    headers = {"authorization": f"Bearer {key['key']}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
        show_embeddings(client)
        show_ranking(client)
    show_snippets(url, key["key"])


if __name__ == "__main__":
    main()
