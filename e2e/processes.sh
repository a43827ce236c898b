# shellcheck shell=bash
# Servers that outlive the script that started them, each known by a file with its process id. Sourced, after lib.sh.
#
# Nothing is ever stopped by its name: other people's servers run on the same machine. The file holds the start time as well,
# because process ids come round again, and a stop must not hit whoever got the old one.

# process_fields PID: its /proc stat line after the name: state, parent, ..., threads as the 18th, start time as the 20th. Fails
# once it is gone.
process_fields() {
  local line
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  printf '%s' "${line##*) }" # a name may hold blanks and brackets itself
}

# alive PID: whether the process lives; sets `fields`. A zombie, whose parent was not told yet, does not count, unless it is only
# the first thread that has ended: the others still hold its ports and files.
alive() {
  read -ra fields <<<"$(process_fields "$1")"
  [[ ${fields[0]:-Z} != [ZX] || ${fields[17]:-0} -gt 1 ]]
}

# running FILE: whether the process lives; sets `pid`.
running() {
  local started fields
  { read -r pid started <"$1"; } 2>/dev/null || return 1
  alive "$pid" && [ "${fields[19]}" = "$started" ]
}

# record_pid FILE PID: whole at once, because somebody may be reading the file.
record_pid() {
  local fields part=${1%/*}/.${1##*/}.$BASHPID
  read -ra fields <<<"$(process_fields "$2")"
  echo "$2 ${fields[19]:-0}" >"$part"
  mv -f "$part" "$1"
}

# launch FILE LOG COMMAND...: starts a server in a session of its own, where a Ctrl-C meant for a test does not reach it. It
# writes its own process id down before it leaves the caller's session, so that there is no moment in which the caller can be
# ended and the server stays behind unknown.
launch() {
  local file=$1 log=$2
  shift 2
  (
    record_pid "$file" "$BASHPID"
    exec setsid "$@"
  ) >>"$log" 2>&1 </dev/null &
  record_pid "$file" $! # the same again, so that the file is there when this returns
}

# wait_until FILE LOG SECONDS COMMAND...: until the command succeeds; fails, with the log's end, when the server died first.
wait_until() {
  local file=$1 log=$2 deadline=$(($(now) + $3 * 1000000)) words
  shift 3
  until "$@" >/dev/null 2>&1; do
    if ! running "$file"; then words="exited"; elif (($(now) > deadline)); then words="is not ready"; else
      sleep 0.1
      continue
    fi
    say "the server $words; last lines of $log:"
    tail -n 15 "$log" >&2
    return 1
  done
}

# reachable HOST PORT: whether something listens there.
reachable() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

# descendants PID...: the processes and all their children, one a line.
descendants() {
  cat /proc/[0-9]*/stat 2>/dev/null | awk -v roots="$*" '
    { pid = $1; sub(/^.*\) /, ""); parent[pid] = $2 }
    END {
      for (n = split(roots, queue, " "); i < n;) {
        print queue[++i]
        for (pid in parent) if (parent[pid] == queue[i]) queue[++n] = pid
      }
    }'
}

# gone SECONDS PID...: waits for processes to end; fails when one is still there.
gone() {
  local deadline=$(($(now) + $1 * 1000000)) pid fields
  shift
  for pid; do
    while alive "$pid"; do
      (($(now) < deadline)) || return 1
      sleep 0.05
    done
  done
}

# kill_hard PID...: them and their children, at once; works on stopped processes as well.
kill_hard() {
  local pids
  mapfile -t pids < <(descendants "$@")
  kill -KILL "${pids[@]}" 2>/dev/null || true
  gone 10 "${pids[@]}"
}

# stop FILE [SIGNAL [SECONDS]]: asks the server to end, and kills it if it does not; does nothing when it runs no more.
stop() {
  local pid
  if running "$1"; then
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    kill -CONT "$pid" 2>/dev/null || true # one that a test has stopped sees the signal only now
    gone "${3:-10}" "$pid" || kill_hard "$pid"
  fi
  rm -f "$1"
}

# kill_now FILE: a crash.
kill_now() {
  local pid
  if running "$1"; then kill_hard "$pid"; fi
  rm -f "$1"
}
