#!/bin/sh
# Service check: a Debian package under a real systemd, in namespaces over a copy of this machine.
#
#   sudo sh packaging/service_check.sh dist/gigarouter_…_amd64.deb
#
# Nothing of this machine changes: what is written goes into memory and is gone afterwards. Needs
# Debian's systemd, unshare, nsenter, overlayfs and curl, and port 8642.
set -eu
deb=$(readlink -f "${1:?a .deb of gigarouter}")
work=$(mktemp -d)
cgroup=/sys/fs/cgroup
[ -d "$cgroup/unified" ] && cgroup=$cgroup/unified
mkdir -p "$cgroup/gigarouter-check"

cat >"$work/boot" <<'BOOT'
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mkdir -p proc sys dev run tmp old
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
cp "$2" srv/gigarouter.deb
pivot_root . old
umount -l old
# What systemd hands to a service it mounts in a namespace of its own, and passes on from there.
mount --make-rshared /
hostname check
exec env -i container=check PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
    --unit=multi-user.target --log-target=null
BOOT

cat >"$work/check" <<'CHECK'
cd /
export PATH=/usr/sbin:/usr/bin:/sbin:/bin GIGAROUTER_DATA_DIR=/var/lib/gigarouter LC_ALL=C.UTF-8
failed=0
# holds WHAT COMMAND...: say whether a command succeeds.
holds() {
    what=$1
    shift
    if "$@" >/tmp/said 2>&1; then echo "ok    $what"; else echo "FAIL  $what"; cat /tmp/said; failed=1; fi
}
soon() { for _ in $(seq 60); do "$@" && return; sleep 1; done; return 1; }
calls() {
    [ "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8642/v1/embeddings \
        -H "Authorization: Bearer $key" -d '{"model": "all-minilm-l6-v2", "input": "hello"}')" = 200 ]
}
main() { systemctl show -P MainPID gigarouter; }
started() { [ "$(systemctl show -P NRestarts gigarouter)" = "$1" ] && systemctl -q is-active gigarouter; }
roots_are_there() { ! none_of_roots; }
none_of_roots() { [ -z "$(find /var/lib/gigarouter/ -user root)" ]; }

holds "the package installs" dpkg -i /srv/gigarouter.deb
holds "its service runs" soon systemctl -q is-active gigarouter
holds "it is what was installed" dpkg --verify gigarouter
key=$(gigarouter keys mint alice --credit 5 2>/dev/null)
holds "it answers" calls
holds "its user is nobody else's" [ "$(stat -Lc %U /var/lib/gigarouter/)" = gigarouter ]
holds "the doctor finds nothing that failed" gigarouter doctor --running
kill -9 "$(pgrep -P "$(main)" | head -n 1)"
holds "a server that is killed is started again" soon calls
holds "and its supervisor is the same" started 0
mkdir -p /run/systemd/system/gigarouter.service.d
printf '[Service]\nWatchdogSec=12\n' >/run/systemd/system/gigarouter.service.d/soon.conf
systemctl daemon-reload
systemctl restart gigarouter
sleep 30
holds "an idle service is left alone by the watchdog" started 0
kill -STOP "$(main)"
holds "one that hangs is started again" soon started 1
holds "and answers" soon calls
holds "it stops in good order" systemctl stop gigarouter
holds "without an error" [ "$(systemctl show -P Result gigarouter)" = success ]
gigarouter tls make >/dev/null 2>&1
holds "root leaves files of its own" roots_are_there
holds "with which the service starts" systemctl start gigarouter
holds "and which are its own then" none_of_roots
holds "a call costs what it did" soon calls
systemd-analyze security gigarouter --no-pager | tail -n 1
holds "it is removed" dpkg -r gigarouter
holds "and the books are there" [ -s /var/lib/gigarouter/gigarouter.db ]
exit "$failed"
CHECK

echo $$ >"$cgroup/gigarouter-check/cgroup.procs"
mkdir "$work/system"
unshare --pid --mount --cgroup --uts --ipc --fork --kill-child \
    sh "$work/boot" "$work/system" "$deb" &
leader=$!
end() {
    kill -9 "$leader" 2>/dev/null || true
    wait "$leader" 2>/dev/null || true
    echo $$ >"$cgroup/cgroup.procs"
    # What ran there ends with its first process, a moment later.
    for _ in $(seq 20); do
        find "$cgroup/gigarouter-check" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        [ -d "$cgroup/gigarouter-check" ] || break
        sleep 0.5
    done
    rm -rf "$work"
}
trap end EXIT
sleep 5
systemd=$(pgrep -P "$leader" | head -n 1)
status=0
nsenter -t "$systemd" --mount --pid --cgroup --uts --ipc --root --wd=/ \
    env -i -C / sh -s <"$work/check" || status=$?
exit "$status"
