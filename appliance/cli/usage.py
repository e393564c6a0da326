"""Usage: `gigarouter usage`."""

import click

from appliance.cli import printing
from appliance.cli.operator import reach
from appliance.cli.options import everywhere
from appliance.client import verbs
from appliance.store.datadir import DataDir


@click.command()
@click.option("--key", "key_id", default="all", help="One key's alone.", metavar="ID")
@click.option("--model", default="all", help="One model's alone.", metavar="ID")
@click.option("--since", default="30d", show_default=True, help="Like 7d or 12w, or 'all'.")
@click.option(
    "--by", type=click.Choice(["day", "model", "key", "tier"]), default="day", show_default=True
)
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")
@everywhere
def usage(
    directory: DataDir,
    *,
    as_json: bool,
    key_id: str,
    model: str,
    since: str,
    by: str,
    as_csv: bool,
) -> None:
    """Show what was sold, by day, model, key or tier."""
    with reach(directory) as operator:
        report = operator.do(verbs.USAGE, by, since, key_id, model)
    if as_json:
        printing.document(report)
    elif as_csv:
        from appliance.admin.usage import as_csv as table  # noqa: PLC0415 - SQLite, only here

        click.echo(table(report), nl=False)
    else:
        printing.usage(report)
