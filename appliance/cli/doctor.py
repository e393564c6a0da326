"""Doctor: `gigarouter doctor`."""

import click

from appliance.cli import printing
from appliance.cli.operator import reach
from appliance.cli.options import everywhere
from appliance.client import verbs
from appliance.core.errors import ApplianceError, ServerUnreachable
from appliance.store.datadir import DataDir
from appliance.wire.doctor import Report


@click.command()
@everywhere
@click.option("--hub", is_flag=True, help="Ask the hub, too, whether it answers (5 s at most).")
@click.option("--running", is_flag=True, help="That no server runs is a failed check.")
@click.pass_context
def doctor(
    ctx: click.Context, directory: DataDir, *, as_json: bool, hub: bool, running: bool
) -> None:
    """Look at files, disk, engine, network, keys, books, backups, models and memory.

    Exit code 1: a check failed. A data directory that cannot be opened is a failed check, too.
    """
    try:
        if running and directory.server() is None:
            raise ServerUnreachable(
                f"no server runs on {directory.path}; gigarouter serve starts one"
            )
        with reach(directory) as operator:
            report = operator.do(verbs.DOCTOR, "true" if hub else "false")
    except ApplianceError as error:
        from appliance.admin.doctor import of_machine, refused  # noqa: PLC0415 - as in operator

        report = Report(healthy=False, data=[refused(error), *of_machine(directory)])
    printing.document(report) if as_json else printing.health(report)
    ctx.exit(0 if report.healthy else 1)
