"""Man: a manual page for each command, from the words that `--help` shows."""

from collections.abc import Iterator

import click

from appliance.cli.main import cli

SECTION = "1"


def pages(version: str) -> dict[str, str]:
    """Return each page's text in man's macros, by its file's name."""
    return {
        f"{name.replace(' ', '-')}.{SECTION}": "\n".join(_page(name, command, version)) + "\n"
        for name, command in commands("gigarouter", cli)
    }


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and what is below it, each with its whole name."""
    yield name, command
    if isinstance(command, click.Group):
        for below in sorted(command.commands):
            if not command.commands[below].hidden:
                yield from commands(f"{name} {below}", command.commands[below])


def _page(name: str, command: click.Command, version: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    title = name.replace(" ", "-")
    first, *rest = (command.help or "").strip().split("\n\n")
    yield f'.TH "{title.upper()}" "{SECTION}" "" "gigarouter {version}" "gigarouter"'
    yield ".SH NAME"
    yield f"{_plain(title)} \\- {_plain(' '.join(first.split()).rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_plain(name)}"
    yield _plain(" ".join(command.collect_usage_pieces(context)))
    if rest:
        yield ".SH DESCRIPTION"
        for paragraph in rest:
            yield ".PP"
            yield _plain(" ".join(paragraph.split()))
    options = [
        record
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) is not None
    ]
    if options:
        yield ".SH OPTIONS"
        for names, said in options:
            yield ".TP"
            yield f".B {_plain(names)}"
            yield _plain(said)
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for below, each in sorted(command.commands.items()):
            if not each.hidden:
                yield ".TP"
                yield f".B {_plain(below)}"
                yield _plain(f"{each.get_short_help_str(200)} See {title}-{below}({SECTION}).")


def _plain(text: str) -> str:
    """Return a text as man shows it, whatever it begins with."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
