"""The README's own curl calls, sent as they stand: what it prints is what the server answers."""

import json
import re
import shlex

import pytest

from tests.server import ROOT

README = (ROOT / "README.md").read_text("utf-8")
EXAMPLE = re.compile(r"^(curl localhost:8642[^#]*?')\n((?:#.*\n)+)", re.MULTILINE)


def examples():
    found = {}
    for match in EXAMPLE.finditer(README):
        words = shlex.split(match[1].replace("\\\n", " "))
        printed = " ".join(line[1:].strip() for line in match[2].splitlines())
        path = words[1].removeprefix("localhost:8642")
        found[path] = (words[words.index("-d") + 1], printed)
    return found


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+|(?<=:)\d+", text)]


PATHS = ("/v1/embeddings", "/v1/rerank", "/v1/tokenize", "/v1/detokenize", "/v1/segment")


def test_the_readme_has_an_example_of_each_endpoint_that_takes_texts():
    assert set(examples()) == set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_the_server_answers_what_the_readme_prints(server, path):
    body, printed = examples()[path]
    with server.client() as client:
        answer = client.post(path, content=body).raise_for_status().json()
    shown = numbers(printed)
    assert shown
    said = numbers(json.dumps(answer, separators=(",", ":")))
    for number in shown:
        assert any(abs(number - other) < 0.001 for other in said), (number, printed)
