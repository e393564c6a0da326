"""Commands in the test's own process: many of them in little time."""

import os
import subprocess

from click.testing import CliRunner

from appliance.cli.main import cli


def at_once(*arguments, data_dir, env=None):
    """Run a command in this process, as far as its command line goes: many mistakes, little time."""
    before = os.umask(0o077)
    try:
        end = CliRunner().invoke(
            cli,
            [*map(str, arguments), "--data-dir", str(data_dir)],
            env=env,
            prog_name="gigarouter",
            catch_exceptions=False,
        )
    finally:
        os.umask(before)
    return subprocess.CompletedProcess(arguments, end.exit_code, end.stdout, end.stderr)
