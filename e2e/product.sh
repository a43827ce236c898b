# shellcheck shell=bash disable=SC2034,SC2154 # what it sets is used, and what it uses is set, by others
# What the demo and the end-to-end run share: the operator's binary, the test systems by name, and words for looking at
# objects. Sourced, after lib.sh and processes.sh; all but build_binary is meant for the inside of `with`.

chart=$e2e/../charts/authlink
namespace=shop # where the example databases are

# build_binary: sets and exports AUTHLINK_BINARY, unless it is given.
build_binary() {
  if [ -z "${AUTHLINK_BINARY:-}" ]; then
    say "building the operator (several minutes for the first build)"
    (cd "$e2e/.." && cargo build --release --locked)
    AUTHLINK_BINARY=$CARGO_TARGET_DIR/release/authlink
  fi
  [ -x "$AUTHLINK_BINARY" ] || fail "AUTHLINK_BINARY=$AUTHLINK_BINARY: no such executable"
  export AUTHLINK_BINARY
}

# render FILE: a manifest, with the addresses of this run's servers.
render() {
  sed -e "s/\<HOST\>/${AUTHLINK_TEST_POSTGRESQL%:*}/" \
    -e "s/\<PORT_POSTGRESQL\>/${AUTHLINK_TEST_POSTGRESQL#*:}/" -e "s/\<PORT_MARIADB\>/${AUTHLINK_TEST_MARIADB#*:}/" \
    -e "s/\<PORT_REDIS_TLS\>/$((${AUTHLINK_TEST_REDIS#*:} + 1))/" \
    -e "s/\<PORT_FERRETDB_TLS\>/$((${AUTHLINK_TEST_FERRETDB#*:} + 1))/" \
    -e "s/\<PORT_NGINX\>/${AUTHLINK_TEST_NGINX#*:}/" -e "s/\<PORT_NGINX_TLS\>/$((${AUTHLINK_TEST_NGINX#*:} + 1))/" \
    -e "s/\<PORT_SECOND_NGINX\>/$(second_nginx_port)/" -e "s/\<PORT_SECOND_NGINX_TLS\>/$(($(second_nginx_port) + 1))/" \
    -e "s/\<PORT_API\>/$AUTHLINK_PORT_API/" -e "s/\<PORT_SLAPD\>/${AUTHLINK_TEST_SLAPD:+${AUTHLINK_TEST_SLAPD##*:}}/" "$e2e/manifests/$1"
}

# in_shop ARGUMENT...: kubectl in the namespace of the examples.
in_shop() { kubectl -n "$namespace" "$@"; }

# make_shop: the namespace, with the authority that the servers' certificates come from.
make_shop() {
  kubectl create namespace "$namespace" >/dev/null
  in_shop create configmap test-ca --from-file=ca.crt="$AUTHLINK_TEST_DIR/tls/ca.pem" >/dev/null
}

# postgresql start|stop|kill
postgresql() {
  BIND=${AUTHLINK_TEST_POSTGRESQL%:*} "$e2e/systems/postgresql" "$AUTHLINK_TEST_DIR/systems/postgresql" \
    "${AUTHLINK_TEST_POSTGRESQL#*:}" "$1"
}

# The instance of a service that dies.
second_nginx_port() { echo $((${AUTHLINK_TEST_NGINX#*:} + 10)); }

# second_nginx start|stop|kill
second_nginx() {
  BIND=${AUTHLINK_TEST_NGINX%:*} "$e2e/systems/nginx" "$AUTHLINK_TEST_DIR/systems/second-nginx" "$(second_nginx_port)" "$1"
}

# psql_program: Debian keeps every major version apart; any will do.
psql_program() { find /usr/lib/postgresql -path '*/bin/psql' | sort -V | tail -n 1; }

# administrate STATEMENT...: as the administrator of PostgreSQL.
administrate() {
  local statement
  for statement; do
    PGPASSWORD=admin-secret PGCONNECT_TIMEOUT=5 "$(psql_program)" -X -q -v ON_ERROR_STOP=1 \
      -h "${AUTHLINK_TEST_POSTGRESQL%:*}" -p "${AUTHLINK_TEST_POSTGRESQL#*:}" -U postgres postgres -c "$statement"
  done
}

# set_password PASSWORD: of the user `app` of PostgreSQL.
set_password() { administrate "alter role app password '$1'"; }

# set_secret NAME PASSWORD: the same in a Secret.
set_secret() { in_shop patch secret "$1" --type merge -p "{\"stringData\": {\"password\": \"$2\"}}" >/dev/null; }

# binds SECRET PASSWORD: whether the Secret has it.
binds() { [ "$(in_shop get secret "$1" -o jsonpath='{.data.password}' | base64 -d)" = "$2" ]; }

# field NAME JSONPATH: a field of a Database.
field() { in_shop get databases.authlink.dev "$1" -o "jsonpath={$2}"; }

# condition NAME TYPE [FIELD]: a condition's status, or another field of it.
condition() { field "$1" ".status.conditions[?(@.type==\"$2\")].${3:-status}"; }

fingerprint() { field "$1" '.status.credentials[0].fingerprint'; }

# ready_since: of each Database the time of the last change of Ready. The same answer twice means: none changed meanwhile.
ready_since() {
  local ready='{range .status.conditions[?(@.type=="Ready")]} {.status} since {.lastTransitionTime}{end}'
  in_shop get databases.authlink.dev -o jsonpath="{range .items[*]}{.metadata.name}$ready{\"\n\"}{end}"
}

# endpoints SERVICE: each address of its EndpointSlices, and whether it is ready.
endpoints() {
  local each='{.addresses[0]} ready={.conditions.ready}{"\n"}'
  in_shop get endpointslices -l "kubernetes.io/service-name=$1" -o jsonpath="{range .items[*].endpoints[*]}$each{end}"
}

# becomes CONDITION[=STATUS] SECONDS NAME...: waits for Databases.
becomes() {
  local condition=$1 seconds=$2
  shift 2
  in_shop wait --for="condition=$condition" --timeout="${seconds}s" "${@/#/databases.authlink.dev/}" >/dev/null
}

# answers_ok HOST PORT PATH: whether HTTP says 200 there. Not every machine has a program for that.
answers_ok() {
  local line
  exec {answer}<>"/dev/tcp/$1/$2"
  printf 'GET %s HTTP/1.0\r\n\r\n' "$3" >&"$answer"
  read -r line <&"$answer"
  exec {answer}>&-
  [[ $line == *' 200 '* ]]
}

# until_true SECONDS COMMAND...: asks again and again.
until_true() {
  local deadline=$(($(now) + $1 * 1000000))
  shift
  until "$@" >/dev/null 2>&1; do
    (($(now) < deadline)) || return 1
    sleep 0.1
  done
}

# differs OLD COMMAND...: whether the command says something, and something else.
differs() {
  local old=$1 new
  shift
  new=$("$@") && [[ -n $new && $new != "$old" ]]
}
