"""Snippets: how a client calls the server with a key, in lines that a dialog does not break."""

from rich.text import Text
from textual.widgets import Static


def snippets(url: str, key: str, model: str) -> dict[str, str]:
    """Return snippets that call the server with a key, by the name of the client."""
    base = f"{url}/v1"
    return {
        "curl": (
            f"KEY={key}\n"
            f"curl {base}/embeddings \\\n"
            '  -H "Authorization: Bearer $KEY" \\\n'
            "  -H 'Content-Type: application/json' \\\n"
            f'  -d \'{{"model": "{model}",\n'
            '       "input": "hello"}\''
        ),
        "openai-python": (
            "from openai import OpenAI\n"
            "client = OpenAI(\n"
            f'    base_url="{base}",\n'
            f'    api_key="{key}")\n'
            "client.embeddings.create(\n"
            f'    model="{model}",\n'
            '    input="hello")'
        ),
        "LangChain": (
            "from langchain_openai import OpenAIEmbeddings\n"
            "OpenAIEmbeddings(\n"
            f'    base_url="{base}",\n'
            f'    api_key="{key}",\n'
            f'    model="{model}",\n'
            "    check_embedding_ctx_length=False)"
        ),
        "Open WebUI": (
            "Settings > Documents > Embedding engine: OpenAI\n"
            f"URL: {base}\nAPI key: {key}\nModel: {model}"
        ),
    }


class Snippets(Static):
    """One snippet at a time, below the names of all."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - textual's name
        super().__init__(id=id)
        self._texts: dict[str, str] = {}
        self._shown_name = ""

    @property
    def chosen(self) -> str:
        """The text of the snippet that is shown; empty: there is none."""
        return self._texts.get(self._shown_name, "")

    def offer(self, texts: dict[str, str]) -> None:
        """Show the first of some snippets."""
        self._texts = texts
        self.add_class("snippet")
        self.choose("1")

    def choose(self, number: str | None) -> None:
        """Show the snippet with this number; other keys change nothing."""
        names = list(self._texts)
        if not number or not number.isdecimal() or not 0 < int(number) <= len(names):
            return
        self._shown_name = names[int(number) - 1]
        head = Text()
        for n, name in enumerate(names, 1):
            head.append(f"{n} {name}   ", "reverse" if name == self._shown_name else "dim")
        head.append(f"\n{self.chosen}", "default")
        self.update(head)
