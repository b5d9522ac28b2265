#!/bin/sh
# Removes attestd from macOS, as root. Configuration, grants and audit stay.
#
#   uninstall.sh [--purge]            --purge: remove configuration, grants, audit, logs and the account as well
#   uninstall.sh --destdir DIR [--purge]
#
# What users keep in their home directories is never touched. Not yet run on a Mac: see docs/macos.md.
set -eu
PATH=/usr/bin:/bin:/usr/sbin:/sbin

destdir=
purge=no

fail() {
  printf 'error: %s\n' "$1" >&2
  exit "${2:-1}"
}

while [ $# -gt 0 ]; do
  case $1 in
    --destdir)
      [ $# -ge 2 ] || fail "$1 needs a value" 2
      destdir=$2
      shift
      ;;
    --purge) purge=yes ;;
    *) fail "unknown option $1" 2 ;;
  esac
  shift
done

home="$destdir/Library/Application Support/attestd"

if [ -z "$destdir" ]; then
  [ "$(uname -s)" = Darwin ] || fail "cannot uninstall on $(uname -s): this is for macOS"
  [ "$(id -u)" = 0 ] || fail "cannot uninstall as uid $(id -u): run it as root" 4
  launchctl bootout system/dev.attestd.daemon 2>/dev/null || :
  for user in $(dscl . -list /Users UniqueID | awk '$2 >= 500 { print $2 }'); do
    launchctl bootout "gui/$user/dev.attestd.agent" 2>/dev/null || :
  done
fi

rm -f "$destdir/Library/LaunchDaemons/dev.attestd.daemon.plist" "$destdir/Library/LaunchAgents/dev.attestd.agent.plist"
rm -f "$destdir/etc/newsyslog.d/attestd.conf" "$home/uninstall.sh"
rm -rf "$home/runtime" "$destdir/var/run/attestd"

if [ "$purge" = yes ]; then
  rm -rf "$home" "$destdir/var/db/attestd" "$destdir/var/log/attestd"
  if [ -z "$destdir" ]; then
    dscl . -delete /Users/_attestd 2>/dev/null || :
    dscl . -delete /Groups/_attestd 2>/dev/null || :
  fi
else
  for directory in "$home/policy.d" "$home/servers.d" "$home"; do
    rmdir "$directory" 2>/dev/null || :
  done
fi
printf 'removed\n'
