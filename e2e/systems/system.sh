# shellcheck shell=bash
# The verbs that every test system has; each system's script sources this, defines its parts and calls `system_main`.
#
#   SYSTEM DIR PORT start    makes the server's data and users on first use, starts it, returns when it answers
#   SYSTEM DIR PORT stop     ends it in an orderly way; what it stored is there after the next start
#   SYSTEM DIR PORT kill     crashes it: kill -9 of all its processes
#
# start and stop do nothing when there is nothing to do. All a server has is in DIR: data/, tls/, log, pid, name.
# Environment, read at each start:
#   BIND      the address to listen on (127.0.0.1)
#   TLS_DIR   where the certificates are, made if missing (those of the run if e2e/with runs, else DIR/../tls)
#   CERT      the name of the certificate to serve (server)
# Users, on every system: an administrator with password admin-secret, and `app` with password app-secret, which owns the
# database `app` where there are databases. Each script names the others it has.
#
# A script defines  initialise: fills data/, which is empty, on the first start
#                   serve: one `launch` of the server
#                   answers: whether the administrator can log in (that is: whether it really serves)
#                   populate: makes users, on the first start, once it answers
# and may set stop_signal, and tls_owner: the user that reads the key.

systems=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
source "$systems/../lib.sh"
# shellcheck source-path=SCRIPTDIR/.. source=processes.sh
source "$systems/../processes.sh"

[[ $# = 3 && $2 =~ ^[0-9]+$ && $3 =~ ^(start|stop|kill)$ ]] || fail "usage: ${0##*/} DIR PORT start|stop|kill"
umask 022 # a server that runs as another user reads what is made here
dir=$(mkdir -p "$1" && cd "$1" && pwd)
port=$2
verb=$3
bind=${BIND:-127.0.0.1}
host=$bind # what its own checks connect to
[ "$bind" = 0.0.0.0 ] && host=127.0.0.1
tls=$dir/tls
pid_file=$dir/pid
log=$dir/log
stop_signal=TERM
tls_owner=
initialise() { :; }
populate() { :; }

# Copies, because some servers insist on a key that only their own user can read.
install_certificates() {
  local from=${TLS_DIR:-${AUTHLINK_TEST_DIR:-$dir/..}/tls} cert=${CERT:-server} owner=()
  "$systems/certificates" "$from"
  [ -f "$from/$cert.pem" ] || fail "CERT=$cert: certificate $from/$cert.pem not found"
  [ -z "$tls_owner" ] || owner=(-o "$tls_owner")
  mkdir -p "$tls"
  install "${owner[@]}" -m 644 "$from/ca.pem" "$tls/ca.pem"
  install "${owner[@]}" -m 644 "$from/$cert.pem" "$tls/server.pem"
  install "${owner[@]}" -m 600 "$from/$cert.key" "$tls/server.key"
}

start() {
  running "$pid_file" && return
  ! reachable "$host" "$port" || fail "port $port of $host is in use by another server"
  install_certificates
  echo "${0##*/}" >"$dir/name"
  if [ ! -f "$dir/complete" ]; then # the first start, or one after a first start that was interrupted
    rm -rf "$dir/data"
    mkdir "$dir/data"
    initialise
  fi
  serve
  wait_until "$pid_file" "$log" 60 answers
  if [ ! -f "$dir/complete" ]; then
    populate
    touch "$dir/complete"
  fi
}

system_main() {
  case $verb in
    start)
      trap 'stop "$pid_file" "$stop_signal"' EXIT # one that does not come up is not left behind
      start
      trap - EXIT
      ;;
    stop) stop "$pid_file" "$stop_signal" ;;
    kill) kill_now "$pid_file" ;;
  esac
}
