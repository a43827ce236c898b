# shellcheck shell=bash disable=SC2154 # sourced by `run`, which sets e2e, chart, namespace and work
# The checks of `run`, one function each, and their helpers. They run in this order, on one cluster, each where the one before
# has left it.

accounts=system:serviceaccount:authlink
everything=(orders billing sessions catalog)
passwords=(admin-secret store-secret app-secret mistyped-secret rotated-secret changed-by-hand)

# remark WORDS: added to the check's line.
remark() { printf ' (%s)' "$*" >>"$work/remark"; }

operator() { kubectl -n authlink "$@"; }

# Images that a registry would hold elsewhere.
images() {
  local version socket=$AUTHLINK_TEST_DIR/cluster/containerd/containerd.sock
  version=$(awk '$1 == "appVersion:" {gsub(/"/, "", $2); print $2}' "$chart/Chart.yaml")
  timed "image of the operator" "$e2e/cluster/image.py" "$socket" "localhost/authlink:$version" /usr/local/bin/authlink \
    "$AUTHLINK_BINARY:/usr/local/bin/authlink"
  "$e2e/cluster/image.py" "$socket" localhost/psql:1 /usr/bin/psql "$(psql_program):/usr/bin/psql" :/tmp/
  "$e2e/cluster/image.py" "$socket" localhost/shell:1 /usr/bin/bash /usr/bin/bash:/usr/bin/bash /usr/bin/curl:/usr/bin/curl \
    /usr/bin/sleep:/usr/bin/sleep :/tmp/
}

install() {
  local name
  for name in authlink "$namespace"; do
    kubectl get namespace "$name" || kubectl create namespace "$name"
    kubectl label namespace "$name" --overwrite pod-security.kubernetes.io/enforce=restricted
  done
  helm install authlink "$chart" --namespace authlink --values "$e2e/manifests/values.yaml" --wait --timeout 90s
  operator rollout status statefulset/authlink --timeout=30s
  [ "$(operator get pods -l app.kubernetes.io/name=authlink --field-selector status.phase=Running -o name)" = pod/authlink-0 ]
  [ "$(operator get pvc data-authlink-0 -o jsonpath='{.status.phase}')" = Bound ]
  kubectl api-resources --api-group=authlink.dev # renews kubectl's notes, which are older than the CRDs
}

# Labels are dry-run: the answer lists, as warnings, the pods that would not be let in.
pod_security() {
  local words
  words=$(kubectl label namespace authlink --dry-run=server --overwrite pod-security.kubernetes.io/enforce=baseline \
    pod-security.kubernetes.io/warn=restricted 2>&1)
  [[ ${words,,} != *warning* ]] || { echo "$words" && return 1; }
  words=$(operator get pods -o jsonpath='{.items[*].spec.containers[*].securityContext}')
  [[ $words = *'"readOnlyRootFilesystem":true'* ]]
}

databases() {
  local name version
  in_shop create configmap test-ca --from-file=ca.crt="$AUTHLINK_TEST_DIR/tls/ca.pem"
  render databases.yaml | in_shop apply -f -
  becomes Ready 30 "${everything[@]}"
  for name in "${everything[@]}"; do
    version=$(field "$name" .status.server.version)
    [[ -n $version && $(field "$name" .status.server.tls) = true ]] || { echo "$name: no version, or no TLS" && return 1; }
    remark "$name $version"
  done
}

wrong_password() {
  render wrong.yaml | in_shop apply -f -
  becomes Ready=False 30 wrong
  [ "$(condition wrong Ready reason)" = AuthenticationFailed ]
}

binding_serves() {
  in_shop apply -f "$e2e/manifests/client.yaml"
  in_shop wait --for=jsonpath='{.status.phase}'=Succeeded --timeout=40s pod/client || { in_shop logs client && return 1; }
  [ "$(in_shop logs client)" = 'app|t' ]
}

# fails_and_recovers: how long each takes. What waits is started first, so that the time is the operator's.
fails_and_recovers() {
  local waiting begin
  in_shop wait --for=condition=Healthy=False --timeout=30s databases.authlink.dev/orders &
  waiting=$!
  postgresql kill
  begin=$(now)
  wait "$waiting"
  remark "False after $(seconds_since "$begin") s"
  echo "Ready: $(condition orders Ready)"
  [ "$(condition orders Ready)" = False ]
  in_shop wait --for=condition=Ready --timeout=30s databases.authlink.dev/orders &
  waiting=$!
  postgresql start
  begin=$(now)
  wait "$waiting"
  remark "True after $(seconds_since "$begin") s"
  [ "$(condition orders Healthy)" = True ]
}

outage() {
  [ "$(condition orders Healthy)" = True ]
  fails_and_recovers
  becomes Healthy 10 billing sessions catalog
}

counted_up() {
  local counts
  counts=$(in_shop get events.events.k8s.io --field-selector regarding.name=orders \
    -o jsonpath='{range .items[*]}{.reason}={.series.count}{"\n"}{end}')
  echo "$counts"
  grep -Eq '=([2-9]|[1-9][0-9]+)$' <<<"$counts"
}

second_outage() {
  fails_and_recovers
  until_true 10 counted_up || { counted_up && return 1; }
}

rotation() {
  local before since
  before=$(fingerprint orders)
  since=$(condition orders Ready lastTransitionTime)
  set_password rotated-secret
  set_secret orders-login rotated-secret
  until_true 20 differs "$before" fingerprint orders
  until_true 10 binds orders-binding rotated-secret
  [[ $(condition orders Ready) = True && $(condition orders Ready lastTransitionTime) = "$since" ]]
  remark "fingerprint $before -> $(fingerprint orders)"
}

binding_repaired() {
  set_secret orders-binding changed-by-hand
  until_true 20 binds orders-binding rotated-secret
}

# switch_binding true|false
switch_binding() { change orders "{\"binding\": {\"enabled\": $1}}"; }

binding_switched() {
  switch_binding false
  in_shop wait --for=delete --timeout=20s secret/orders-binding
  until_true 10 no_binding_in_status
  switch_binding true
  until_true 20 binds orders-binding rotated-secret
}
no_binding_in_status() { [ -z "$(field orders .status.binding.name)" ]; }

# leader: the pod that holds the Lease.
leader() {
  local holder
  holder=$(operator get lease authlink-operator -o jsonpath='{.spec.holderIdentity}')
  printf '%s' "${holder%_*}" # the one pod adds its uid
}

# Ready of all but what is broken on purpose.
steady() {
  in_shop delete databases.authlink.dev wrong
  becomes Ready 30 "${everything[@]}"
}

# change NAME SPEC
change() { in_shop patch databases.authlink.dev "$1" --type merge -p "{\"spec\": $2}"; }

# serves NAME MAX_ROWS [SECONDS]: whether there is somebody who takes note of a change, of one that does not matter to the probes.
serves() {
  change "$1" "{\"query\": {\"maxRows\": $2}}"
  until_true "${3:-30}" up_to_date "$1"
}

unchanged() { [ "$1" = "$2" ] || { printf 'before: %s after: %s' "$1" "$2" | tr '\n' ' ' && return 1; }; }

led_by_running_pod() { operator get pod "$(leader)"; }
up_to_date() { [ "$(field "$1" .metadata.generation)" = "$(field "$1" .status.observedGeneration)" ]; }

# running_pods [SELECTOR]
running_pods() {
  operator get pods -l "app.kubernetes.io/name=authlink${1:-}" --field-selector status.phase=Running \
    -o jsonpath='{.items[*].metadata.name}'
}
metrics() { kubectl get --raw "/api/v1/namespaces/authlink/pods/$1:8080/proxy/metrics"; }

# save_logs: what every pod has said so far; a pod's log goes with it.
save_logs() {
  local pod
  for pod in $(running_pods); do
    operator logs "$pod" >"$work/logs/$pod-$(operator get pod "$pod" -o jsonpath='{.metadata.uid}')" || true
  done
}

no_leaks() {
  local pod password patterns=() folder=$work/seen
  passwords+=("$(in_shop get secret audit-signing-keys -o jsonpath='{.data.secret}' | base64 -d)")
  mkdir -p "$folder"
  cp "$work"/logs/* "$folder"
  for pod in $(running_pods); do metrics "$pod" >"$folder/metrics-$pod"; done
  kubectl get events -A -o yaml >"$folder/events"
  kubectl get databases.authlink.dev,webhooks.authlink.dev -A -o yaml >"$folder/objects"
  operator get all,configmaps,leases -o yaml >"$folder/operator"
  for password in "${passwords[@]}"; do
    patterns+=(-e "$password" -e "$(printf '%s' "$password" | base64)")
  done
  # A search in nothing would find nothing.
  grep -q '"leading"' "$folder"/authlink-*
  grep -q authlink_build "$folder"/metrics-*
  grep -q AuthenticationFailed "$folder/events"
  remark "$(cat "$folder"/* | wc -l) lines"
  local status=0
  grep -nF "${patterns[@]}" "$folder"/* >"$work/leaks" || status=$?
  cut -c 1-300 "$work/leaks"
  [ "$status" = 1 ] # 2: a file could not be read
}

# nothing_refused SINCE ACCOUNT... A release that is uninstalled loses its rights a moment before its pods end: that is between the two
# checks.
nothing_refused() {
  local since=$1 account
  shift
  for account; do "$e2e/rights.py" refused "$AUTHLINK_TEST_AUDIT" "$accounts:$account" "$since"; done
}
nothing_refused_again() { nothing_refused "$(<"$work/reinstalled")" authlink; }

# uses_all ACCOUNT KIND/NAME...: whether it made use of every right in these roles.
uses_all() {
  local account=$1 role counts roles=()
  shift
  for role; do
    roles+=("$work/${role/\//-}.json")
    operator get "$role" -o json >"${roles[-1]}"
  done
  counts=$("$e2e/rights.py" unused "$AUTHLINK_TEST_AUDIT" "$accounts:$account" "${roles[@]}")
  remark "$counts"
}

# The gateway by its Service, as an application calls it: with a token and nothing else.
gateway() {
  local path=$1
  shift
  curl -sS --max-time 10 -H "Authorization: Bearer $token" "$@" "http://$address$path"
}

gateway_calls() {
  local token address
  render welcome.yaml | in_shop apply -f -
  in_shop wait --for=condition=Ready --timeout=60s externalapis.authlink.dev/welcome
  token=$(in_shop create token checkout --audience authlink)
  address=$(operator get service authlink -o jsonpath='{.spec.clusterIP}')
  until_true 20 gateway "/v1/apis/$namespace/welcome/" # a node learns a moment later that another pod is the gateway now
  [ "$(gateway "/v1/apis/$namespace/welcome/")" = welcome ]
  gateway "/v1/databases/$namespace/orders/queries/roleNamed" -d '{"params": ["app"]}' | grep -F '"name":"app"'
  gateway "/v1/databases/$namespace/billing/queries/any" -d '{}' | grep -F urn:authlink:forbidden
}

slice_port() { [ "$(in_shop get endpointslices -l kubernetes.io/service-name=sessions -o jsonpath='{.items[*].ports[0].port}')" = "$1" ]; }

service_port() { [ "$(in_shop get service sessions -o jsonpath='{.spec.ports[0].port}')" = "$1" ]; }

discovery() {
  local port
  port=$(field sessions .spec.port)
  in_shop create service clusterip sessions --tcp=1:1
  in_shop patch databases.authlink.dev sessions --type merge -p '{"spec": {"discovery": {"drainSeconds": 0}}}'
  becomes Registered=False 30 sessions
  in_shop delete service sessions
  becomes Registered 30 sessions
  slice_port "$port"
  in_shop patch service sessions --type merge -p '{"spec": {"ports": [{"name": "redis", "port": 1}]}}'
  until_true 20 service_port "$port"
  in_shop patch databases.authlink.dev sessions --type merge -p '{"spec": {"port": 1}}'
  until_true 20 slice_port 1
  in_shop patch databases.authlink.dev sessions --type merge -p "{\"spec\": {\"port\": $port}}"
  until_true 20 slice_port "$port"
  in_shop patch databases.authlink.dev sessions --type merge -p '{"spec": {"discovery": null}}'
  in_shop wait --for=delete --timeout=30s service/sessions
  becomes Ready 30 sessions
}

registration() {
  in_shop apply -f - <<R
apiVersion: authlink.dev/v1alpha1
kind: ServiceRegistration
metadata: {name: legacy-1}
spec: {serviceName: legacy, instanceId: "1", addresses: [10.99.0.1], ports: [{name: http, port: 80}], drainSeconds: 1, healthCheck: {type: None}}
R
  in_shop wait --for=condition=Ready --timeout=30s serviceregistrations.authlink.dev/legacy-1
  [[ $(endpoints legacy) = *'10.99.0.1 ready=true'* ]]
  in_shop delete --timeout=30s serviceregistrations.authlink.dev/legacy-1
}

# An EndpointSlice that led to another Service's address would lead nowhere, and around the NetworkPolicies.
service_refused() {
  local address
  address=$(operator get service authlink -o jsonpath='{.spec.clusterIP}')
  in_shop apply -f - <<R
apiVersion: authlink.dev/v1alpha1
kind: ServiceRegistration
metadata: {name: inside}
spec: {serviceName: inside, instanceId: "1", addresses: ["$address"], ports: [{name: http, port: 80}], healthCheck: {type: None}}
R
  in_shop wait --for=condition=Registered=False --timeout=30s serviceregistrations.authlink.dev/inside
  [ "$(in_shop get serviceregistrations.authlink.dev inside -o jsonpath='{.status.conditions[?(@.type=="Registered")].reason}')" = AddressNotAllowed ]
  [ -z "$(endpoints inside)" ]
  in_shop delete --timeout=30s serviceregistrations.authlink.dev/inside
}

identity() { in_shop get secret orders-binding -o jsonpath='{.metadata.uid} {.data.password}'; }

uninstall() {
  local before binding
  before=$(ready_since)
  binding=$(identity)
  helm uninstall authlink --namespace authlink --wait --timeout 60s
  # A gateway serves on for a while, and after an outage of its API server a kubelet is up to a minute late to see a change.
  operator wait --for=delete pod -l app.kubernetes.io/name=authlink --timeout=150s
  kubectl get crd databases.authlink.dev
  [ "$(ready_since)" = "$before" ]
  [ "$(identity)" = "$binding" ]
  [ -z "$(kubectl get clusterrole authlink --ignore-not-found -o name)" ]
}

reinstall() {
  local before binding volume
  volume=$(claimed)
  before=$(ready_since)
  binding=$(identity)
  date -u +%FT%T.%6NZ >"$work/reinstalled"
  install
  [ "$(claimed)" = "$volume" ]
  serves orders 502
  becomes Ready 30 "${everything[@]}"
  [ "$(identity)" = "$binding" ]
  unchanged "$before" "$(ready_since)"
}
