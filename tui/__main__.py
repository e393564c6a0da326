"""The console's own entry: `python -m tui --data-dir DIR`, or `--url URL --token-file FILE`."""

import sys
from pathlib import Path

import click

from tui.app import Console
from tui.gateway import HttpGateway
from tui.server import LocalServer


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
    if web:
        _serve(web_port)
    elif url is None or token_file is None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        Console(server=LocalServer(data_dir)).run()
    else:
        token = token_file.read_text(encoding="ascii").strip()
        gateway = HttpGateway(url.rstrip("/"), token, is_local=False)
        Console(server=None, gateway=gateway).run()


def _serve(port: int) -> None:
    """Serve this same command, without its flag."""
    try:
        from tui.web import serve  # noqa: PLC0415 - an extra that few install
    except ImportError:
        raise click.ClickException(
            "the web console needs textual-serve: install gigarouter with its extra, web"
        ) from None
    arguments = [each for each in sys.argv[1:] if each != "--web"]
    serve([sys.executable, "-m", "tui", *arguments], port)


if __name__ == "__main__":
    main()
