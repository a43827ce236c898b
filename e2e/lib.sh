# shellcheck shell=bash
# What the scripts of this folder share: where the caches are, and how they talk. Sourced, never run.
#
# Everything that takes long to make is kept outside the checkout, so that a fresh clone finds it again. A tool's folder is
# named by its version or by a hash of its sources: a changed pin builds a new one, and two checkouts with different pins do not fight.

shopt -s inherit_errexit # what fails inside $(...) fails
e2e=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${AUTHLINK_CACHE:-${XDG_CACHE_HOME:-~/.cache}/authlink}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}

# say WORD...: a line of progress. On stderr, for stdout belongs to whatever command is run.
say() { printf '%s\n' "$*" >&2; }

# fail WORD...
fail() {
  say "${0##*/}: $*"
  exit 1
}

# seconds_since MICROSECONDS: the time that passed, with one decimal; `now` gives the start.
now() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }
seconds_since() {
  local tenths=$((($(now) - $1) / 100000))
  printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# timed LABEL COMMAND...: runs it, and says how long it took. The line is written once, at the end, so that things which
# start side by side do not write into each other's lines.
timed() {
  local label=$1 start
  shift
  start=$(now)
  "$@" || return
  say "$label ... $(seconds_since "$start") s"
}

cargo_deny_version=0.20.2

# tool_source NAME: the folder of the Go or npm module that a tool is built from.
tool_source() {
  case $1 in
    controlplane) printf '%s' "$e2e/cluster" ;;
    ferretdb | oidc-provider) printf '%s' "$e2e/systems/$1-module" ;;
    *) fail "unknown tool $1: expected controlplane, ferretdb or oidc-provider" ;;
  esac
}

# tool_folder NAME: where the built tool is, or will be.
tool_folder() {
  local source hash
  if [ "$1" = cargo-deny ]; then
    printf '%s' "$cache/tools/cargo-deny-$cargo_deny_version"
    return
  fi
  source=$(tool_source "$1")
  hash=$(cd "$source" && find . -name '*.go' -o -name go.mod -o -name go.sum -o -name '*.patch' -o -name 'package*.json' -o -name '*.mjs' | LC_ALL=C sort | xargs cat | sha256sum)
  printf '%s' "$cache/tools/$1-${hash:0:16}"
}

# python_folder NAME: the virtual environment of a package from PyPI, pinned in systems/NAME.txt.
python_folder() {
  local hash
  hash=$(sha256sum <"$e2e/systems/$1.txt")
  printf '%s' "$cache/tools/$1-${hash:0:16}"
}

# tool NAME: the path of a program that e2e/prepare built; for pymongo and standardwebhooks, of a Python that has it.
tool() {
  local folder
  case $1 in
    kubectl | helm | pause) folder=$(tool_folder controlplane) ;;
    pymongo | standardwebhooks) printf '%s' "$(python_folder "$1")/bin/python" && return ;;
    *) folder=$(tool_folder "$1") ;;
  esac
  [ -x "$folder/$1" ] || fail "$1 is not built: run e2e/prepare"
  printf '%s' "$folder/$1"
}
