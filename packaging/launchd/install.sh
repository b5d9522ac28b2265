#!/bin/sh
# Installs attestd on macOS, as root: its own Python environment, directories, launchd jobs, log rotation.
#
#   install.sh --wheel FILE [--python PROGRAM] [--agent] [--start]
#   install.sh --destdir DIR [--agent]      lay the files out below DIR only: nothing is run, nothing is owned
#
# --python   a root-owned Python 3.11 or later, default /Library/Frameworks/Python.framework/Versions/Current/bin/python3
# --agent    one instance for each logged-in user (LaunchAgent) instead of the system service (LaunchDaemon)
# --start    load the job now; without it launchd does so at the next boot or login
#
# Not yet run on a Mac: see docs/macos.md.
set -eu
PATH=/usr/bin:/bin:/usr/sbin:/sbin
umask 022

here=$(cd "$(dirname "$0")" && pwd)
destdir=
wheel=
python=/Library/Frameworks/Python.framework/Versions/Current/bin/python3
job=daemon
start=no

fail() {
  printf 'error: %s\n' "$1" >&2
  exit "${2:-1}"
}

value() {
  [ $# -ge 2 ] || fail "$1 needs a value" 2
  printf '%s\n' "$2"
}

while [ $# -gt 0 ]; do
  case $1 in
    --destdir) destdir=$(value "$@"); shift ;;
    --wheel) wheel=$(value "$@"); shift ;;
    --python) python=$(value "$@"); shift ;;
    --agent) job=agent ;;
    --start) start=yes ;;
    *) fail "unknown option $1" 2 ;;
  esac
  shift
done

home="$destdir/Library/Application Support/attestd"
case $job in
  daemon) jobs=$destdir/Library/LaunchDaemons ;;
  agent) jobs=$destdir/Library/LaunchAgents ;;
esac
plist=$jobs/dev.attestd.$job.plist

# Nothing that attests may be writable by those whom it attests: every directory on the way must be root's.
only_root_writes() {
  path=$1
  while :; do
    if [ -n "$(find -L "$path" -prune \( ! -user root -o -perm -020 -o -perm -002 \) -print 2>/dev/null)" ]; then
      fail "cannot use $1: others than root can write $path"
    fi
    [ "$path" = / ] && return
    path=$(dirname "$path")
  done
}

new_account() {
  dscl . -read /Users/_attestd UniqueID >/dev/null 2>&1 && return
  id=300
  while dscl . -search /Users UniqueID "$id" | grep -q . || dscl . -search /Groups PrimaryGroupID "$id" | grep -q .; do
    id=$((id + 1))
    [ "$id" -lt 400 ] || fail "cannot make the account _attestd: no id between 300 and 399 is free"
  done
  dscl . -create /Groups/_attestd PrimaryGroupID "$id"
  dscl . -create /Users/_attestd UniqueID "$id"
  dscl . -create /Users/_attestd PrimaryGroupID "$id"
  dscl . -create /Users/_attestd UserShell /usr/bin/false
  dscl . -create /Users/_attestd NFSHomeDirectory /var/empty
  dscl . -create /Users/_attestd IsHidden 1
}

if [ -z "$destdir" ]; then
  [ "$(uname -s)" = Darwin ] || fail "cannot install on $(uname -s): this is for macOS"
  [ "$(id -u)" = 0 ] || fail "cannot install as uid $(id -u): run it as root" 4
  [ -f "$wheel" ] || fail "cannot install: name attestd's wheel with --wheel" 2
  [ -x "$python" ] || fail "cannot find $python: install Python 3.11 or later for all users, or name it with --python"
  only_root_writes "$python"
fi

install -d -m 755 "$home" "$home/policy.d" "$home/servers.d" "$jobs"
if [ "$job" = daemon ]; then
  install -d -m 755 "$destdir/etc/newsyslog.d" "$destdir/var/run/attestd"
  install -d -m 750 "$destdir/var/log/attestd"
  install -d -m 700 "$destdir/var/db/attestd"
  install -m 644 "$here/attestd.newsyslog.conf" "$destdir/etc/newsyslog.d/attestd.conf"
fi
install -m 755 "$here/uninstall.sh" "$home/uninstall.sh"

if [ -z "$destdir" ]; then
  "$python" -m venv --clear "$home/runtime"
  "$home/runtime/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
  "$home/runtime/bin/attestd" --version
  chown -R root:wheel "$home"
  if [ "$job" = daemon ]; then
    new_account
    chown _attestd:_attestd /var/log/attestd /var/db/attestd /var/run/attestd
  fi
fi

# The job comes last: launchd may start it at once.
install -m 644 "$here/dev.attestd.$job.plist" "$plist"
if [ -z "$destdir" ]; then
  chown root:wheel "$plist"
  if [ "$start" = yes ]; then
    if [ "$job" = daemon ]; then
      launchctl bootout system/dev.attestd.daemon 2>/dev/null || :
      launchctl bootstrap system "$plist"
    else
      user=$(stat -f %u /dev/console)
      launchctl bootout "gui/$user/dev.attestd.agent" 2>/dev/null || :
      launchctl bootstrap "gui/$user" "$plist"
    fi
  fi
fi
printf 'installed: %s\n' "$plist"
