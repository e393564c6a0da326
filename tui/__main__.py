"""Run the console: `python -m tui --data-dir DIR`, or `--url URL --token-file FILE`.

The current folder is dropped from the path of imports first, as in `appliance/__main__.py`.
"""

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib would be imported from the path


def _is_elsewhere(entry: str) -> bool:
    """Return whether an entry of the path may stay: it is not the current folder, or holds us."""
    if not os.path.isabs(entry):  # noqa: PTH117 - as above
        return not os.path.isdir(entry or ".")  # noqa: PTH112 - as above; import hooks have names
    return entry == HOME or entry != os.getcwd()  # noqa: PTH109 - as above


sys.path[:] = [entry for entry in sys.path if _is_elsewhere(entry)]

from pathlib import Path  # noqa: E402 - after the path is safe, as all below

import click  # noqa: E402

from appliance.client.caller import AsyncCaller  # noqa: E402
from appliance.client.errors import ServerLost  # noqa: E402
from appliance.client.local_server import LocalServer  # noqa: E402
from appliance.hardening import harden  # noqa: E402
from tui import theme  # noqa: E402
from tui.app import Console  # noqa: E402
from tui.terminal import abilities, end_with_terminal  # noqa: E402


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), required=True)
@click.option("--url", help="A server elsewhere, instead of this directory's.")
@click.option("--token-file", type=click.Path(path_type=Path, exists=True), help="Its admin token.")
@click.option("--web", is_flag=True, help="In a browser of this machine.")
@click.option("--web-port", type=click.IntRange(1024, 65535), default=8643, show_default=True)
def main(
    data_dir: Path, url: str | None, token_file: Path | None, *, web: bool, web_port: int
) -> None:
    """Show the console of a server."""
    if url is not None and token_file is None:
        raise click.UsageError("--url needs --token-file")
    harden()
    if not web:
        end_with_terminal()
    if web:
        _serve(web_port)
        return
    can_draw, has_colours = abilities()
    if not can_draw:
        raise click.ClickException(
            "this terminal cannot place text (TERM names it): use the commands of `gigarouter "
            "--help`, or set TERM to what the terminal is"
        )
    kept: Path | None = data_dir / theme.FILE
    if url is None or token_file is None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        console = Console(server=LocalServer(data_dir), kept=kept)
    else:
        caller = _remote(url.rstrip("/"), token_file)
        console = Console(server=None, caller=caller, kept=kept if data_dir.is_dir() else None)
    if not has_colours:
        console.drop_colours()
    console.run()


def _remote(url: str, token_file: Path) -> AsyncCaller:
    try:
        return AsyncCaller(url, token_file.read_text("ascii").strip(), is_local=False)
    except (OSError, UnicodeError) as error:
        raise click.ClickException(f"{token_file} holds no admin token: {error}") from None
    except ServerLost as error:
        raise click.ClickException(error.message) from None


def _serve(port: int) -> None:
    """Serve the console that this command line describes, in a browser."""
    try:
        from tui.web import serve  # noqa: PLC0415 - an extra that few install
    except ImportError:
        raise click.ClickException(
            "the web console needs textual-serve: install gigarouter with its extra, web"
        ) from None
    arguments = [each for each in sys.argv[1:] if each != "--web"]
    serve([sys.executable, "-P", "-m", "tui", *arguments], port)


if __name__ == "__main__":
    main()
