"""Quickstart: how each client calls this server, filled in with its address and its models.

The key is a placeholder: a page never holds one.
"""

import json
import shlex
from dataclasses import dataclass
from textwrap import dedent

KEY = "gr-…"
DOCUMENTS = ("Invoices are sent monthly.", "Open Settings to reset it.")


@dataclass(frozen=True, slots=True)
class Snippet:
    """What to paste for one client."""

    id: str
    """For the page's own references."""
    name: str
    where: str
    """Where it is pasted, in a sentence."""
    text: str


def snippets(url: str, embed: str | None, rerank: str | None) -> list[Snippet]:
    """Return the snippets for a server.

    `url` has no path and no last slash; without `embed` there is nothing to show, without `rerank`
    the parts that rank are left out.
    """
    if embed is None:
        return []
    return [
        Snippet("curl", "curl", "In a terminal:", _curl(url, embed, rerank)),
        Snippet("python", "Python", "After pip install openai:", _python(url, embed)),
        Snippet("node", "Node", "After npm install openai, in a .mjs file:", _node(url, embed)),
        Snippet("cohere", "Cohere", "After pip install cohere:", _cohere(url, embed, rerank)),
        Snippet(
            "langchain",
            "LangChain",
            "After pip install langchain-openai:",
            _langchain(url, embed),
        ),
        Snippet(
            "open-webui",
            "Open WebUI",
            "In the admin panel, Settings, Documents:",
            _open_webui(url, embed, rerank),
        ),
        Snippet(
            "continue",
            "Continue",
            "In config.yaml, beside its name, version and schema:",
            _continue(url, embed, rerank),
        ),
    ]


def _quoted(text: str) -> str:
    """Return a string literal of Python, JavaScript, JSON and YAML alike."""
    return json.dumps(text, ensure_ascii=False)


def _curl(url: str, embed: str, rerank: str | None) -> str:
    bodies = [("embeddings", {"model": embed, "input": ["hello world", "goodbye"]})]
    if rerank is not None:
        asked = {"model": rerank, "query": "reset password", "documents": list(DOCUMENTS)}
        bodies.append(("rerank", asked))
    calls = [
        f"curl {url}/v1/{path} \\\n"
        '  -H "Authorization: Bearer $KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body))}"
        for path, body in bodies
    ]
    return "\n\n".join([f"KEY={KEY}", *calls])


def _python(url: str, embed: str) -> str:
    return dedent(f"""\
        from openai import OpenAI

        client = OpenAI(base_url={_quoted(url + "/v1")}, api_key={_quoted(KEY)})
        answer = client.embeddings.create(
            model={_quoted(embed)},
            input=["hello world", "goodbye"],
        )
        print(answer.data[0].embedding[:4], answer.usage)""")


def _node(url: str, embed: str) -> str:
    return dedent(f"""\
        import OpenAI from "openai";

        const client = new OpenAI({{ baseURL: {_quoted(url + "/v1")}, apiKey: {_quoted(KEY)} }});
        const answer = await client.embeddings.create({{
          model: {_quoted(embed)},
          input: ["hello world", "goodbye"],
        }});
        console.log(answer.data[0].embedding.slice(0, 4), answer.usage);""")


def _cohere(url: str, embed: str, rerank: str | None) -> str:
    text = dedent(f"""\
        import cohere

        client = cohere.ClientV2({_quoted(KEY)}, base_url={_quoted(url)})
        answer = client.embed(
            model={_quoted(embed)},
            texts=["hello world", "goodbye"],
            input_type="search_document",
            embedding_types=["float"],
        )
        print(answer.embeddings.float_[0][:4])""")
    if rerank is None:
        return text
    return text + dedent(f"""
        ranking = client.rerank(
            model={_quoted(rerank)},
            query="reset password",
            documents={_quoted_list(DOCUMENTS)},
        )
        print([(each.index, each.relevance_score) for each in ranking.results])""")


def _quoted_list(texts: tuple[str, ...]) -> str:
    return f"[{', '.join(map(_quoted, texts))}]"


def _langchain(url: str, embed: str) -> str:
    return dedent(f"""\
        from langchain_openai import OpenAIEmbeddings

        embeddings = OpenAIEmbeddings(
            base_url={_quoted(url + "/v1")},
            api_key={_quoted(KEY)},
            model={_quoted(embed)},
            check_embedding_ctx_length=False,
        )
        print(embeddings.embed_query("hello world")[:4])""")


def _open_webui(url: str, embed: str, rerank: str | None) -> str:
    lines = [
        "Embedding model engine: OpenAI",
        f"API base URL: {url}/v1",
        f"API key: {KEY}",
        f"Embedding model: {embed}",
    ]
    if rerank is not None:
        lines += [
            "",
            "Hybrid search: on",
            "Reranking engine: External",
            f"Reranker URL: {url}/v1/rerank",
            f"API key: {KEY}",
            f"Reranking model: {rerank}",
        ]
    return "\n".join(lines)


def _continue(url: str, embed: str, rerank: str | None) -> str:
    def entry(name: str, model: str, role: str) -> str:
        return dedent(f"""\
              - name: {name}
                provider: openai
                apiBase: {_quoted(url + "/v1/")}
                apiKey: {_quoted(KEY)}
                model: {_quoted(model)}
                roles: [{role}]""")

    entries = [entry("gigarouter embeddings", embed, "embed")]
    if rerank is not None:
        entries.append(entry("gigarouter rerank", rerank, "rerank"))
    return "\n".join(["models:", *("  " + each.replace("\n", "\n  ") for each in entries)])
