"""Options: what all commands share: two flags, and errors printed as one line.

Owns the exit codes: 0 done; 1 failed, with the reason and the remedy in one line on standard error;
2 wrong usage.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from appliance import settings
from appliance.core.errors import ApplianceError
from appliance.core.text import visible, visible_lines
from appliance.native.pip import BuildFailed
from appliance.store.datadir import DataDir

F = TypeVar("F", bound=Callable[..., Any])

DATA_DIR_HELP = "Where everything is kept; also GIGAROUTER_DATA_DIR."


class DirectoryPath(click.Path):
    """A directory's path; an empty one is refused, since it would be the working directory."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("it is empty; name a directory", param, ctx)
        return super().convert(value, param, ctx)


as_document = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on standard output."
)
"""Adds `--json` to a command, which receives `as_json`."""


def everywhere(command: F) -> F:
    """Add `--data-dir` and `--json` to a command, which receives `directory` and `as_json`."""

    @click.option("--data-dir", type=DirectoryPath(), help=DATA_DIR_HELP)
    @as_document
    @wraps(command)
    def run(*arguments: Any, data_dir: Path | None, **options: Any) -> Any:
        return command(*arguments, directory=DataDir(settings.data_dir(data_dir)), **options)

    return run  # type: ignore[return-value]  # wraps() keeps the signature click needs


class Commands(click.Group):
    """A group of commands whose errors end as one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except ApplianceError as error:
            click.echo(f"gigarouter: {error.message}", err=True)
            ctx.exit(1)
        except BuildFailed as error:
            click.echo(f"gigarouter: {visible_lines(str(error))}", err=True)
            ctx.exit(1)
        except UnicodeEncodeError:
            click.echo("gigarouter: an argument is not valid text (UTF-8)", err=True)
            ctx.exit(1)
        except OSError as error:
            if error.filename is None:
                raise
            # A path that is not ours to read, or not what we need there.
            click.echo(visible(f"gigarouter: {error.filename}: {error.strerror}"), err=True)
            ctx.exit(1)
