"""The console's own entry: `python -m tui --data-dir DIR`, or `--url URL --token-file FILE`."""

from pathlib import Path

import click

from tui.app import Console
from tui.gateway import HttpGateway
from tui.server import LocalServer


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), required=True)
@click.option("--url", help="A server elsewhere, instead of this directory's.")
@click.option("--token-file", type=click.Path(path_type=Path, exists=True), help="Its admin token.")
def main(data_dir: Path, url: str | None, token_file: Path | None) -> None:
    """Show the console of a server."""
    if url is None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        Console(server=LocalServer(data_dir)).run()
        return
    if token_file is None:
        raise click.UsageError("--url needs --token-file")
    token = token_file.read_text(encoding="ascii").strip()
    gateway = HttpGateway(url.rstrip("/"), token, is_local=False)
    Console(server=None, gateway=gateway).run()


if __name__ == "__main__":
    main()
