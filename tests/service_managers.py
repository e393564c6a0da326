"""Stand-ins for the commands of systemd and launchd: shell scripts that use hardly more than the shell.

Each writes its calls into `calls` beside it. A service is loaded if its file is there, and runs
once it was started; launchd's is gone a while after it was told to stop.
"""

from pathlib import Path

SYSTEMCTL = """
case "$*" in
*is-system-running*) echo degraded; exit 1 ;;
*restart*) if [ -e "$here/fails" ]; then echo "Job failed." >&2; exit 1; fi; : > "$here/runs" ;;
*disable*) : > "$here/stopped" ;;
*show*)
  for file in "${here%/*}/units/gigarouter.service" "$XDG_CONFIG_HOME/systemd/user/gigarouter.service"; do
    [ -e "$file" ] && break
  done
  if [ ! -e "$file" ]; then echo LoadState=not-found; echo ActiveState=inactive; echo MainPID=0; exit 0; fi
  echo LoadState=loaded; echo "FragmentPath=$file"; echo UnitFileState=enabled; echo Result=success
  echo "ActiveEnterTimestamp=Fri 2026-11-27 18:51:51 UTC"; echo NRestarts=0; echo InvocationID=77aa
  if [ -e "$here/runs" ]; then echo ActiveState=active; echo SubState=running; echo MainPID=4321
  else echo ActiveState=inactive; echo SubState=dead; echo MainPID=0; fi ;;
esac
"""
JOURNALCTL = 'echo "listening on http://127.0.0.1:8642"'
LAUNCHCTL = """
case "$1" in
bootstrap) [ ! -e "$here/runs" ] || exit 5; : > "$here/runs" ;;
bootout) [ -e "$here/runs" ] || exit 3; : > "$here/drains" ;;
print)
  if [ -e "$here/drains" ] && [ ! -e "$here/seen" ]; then : > "$here/seen"
  elif [ -e "$here/drains" ]; then /bin/rm "$here/runs" "$here/drains" "$here/seen"; fi
  [ -e "$here/runs" ] || exit 113
  printf 'gui/501/gigarouter = {\\n\\tactive count = 1\\n\\tstate = running\\n\\truns = 3\\n\\tpid = 4321\\n}\\n' ;;
esac
"""


def stand_in(folder: Path, name: str, body: str) -> None:
    """Put a command into a folder of PATH."""
    script = folder / name
    head = f'#!/bin/sh\nhere=${{0%/*}}\necho "{name} $*" >> "$here/calls"\n'
    script.write_text(head + body + "\n", encoding="utf-8")
    script.chmod(0o755)
