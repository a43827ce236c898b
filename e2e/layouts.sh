# shellcheck shell=bash disable=SC2154 # sourced by `run`, after checks.sh
# The checks of `run` that are about pods: one pod with its volume, operators and gateways apart, and what callers notice when
# something of all that goes away.

# process_of VARIABLE=VALUE: the process id of the pod that has it in its environment.
process_of() {
  local found
  found=$({ grep -lzx "$1" /proc/[0-9]*/environ 2>/dev/null || true; } | cut -d / -f 3) # some cannot be read
  [[ $found =~ ^[0-9]+$ ]] || { echo "the processes with $1: $found" && return 1; }
  echo "$found"
}

uid_of() { operator get pod "$1" -o jsonpath='{.metadata.uid}'; }

claimed() { operator get pvc data-authlink-0 -o jsonpath='{.spec.volumeName}'; }

# The pod is not asked to end: it can neither give its Lease back nor close a file.
comes_back() {
  local old volume folder process begin
  old=$(uid_of authlink-0)
  volume=$(claimed)
  folder=$(kubectl get pv "$volume" -o jsonpath='{.spec.local.path}')
  # There is no program in the image that could write in its stead: somebody with the same user does it.
  setpriv --reuid 65532 --regid 65532 --clear-groups touch "$folder/kept"
  if [[ $("$AUTHLINK_BINARY" run --help) = *'--store '* ]]; then [ -s "$folder/authlink.db" ]; fi
  process=$(process_of "POD_UID=$old")
  begin=$(now)
  kill -KILL "$process"
  operator delete pod authlink-0 --grace-period=0 --force
  until_true 60 differs "$old" uid_of authlink-0
  operator rollout status statefulset/authlink --timeout=60s
  until_true 20 led_by_running_pod
  remark "recovered after $(seconds_since "$begin") s"
  [ "$(claimed)" = "$volume" ]
  process=$(process_of "POD_UID=$(uid_of authlink-0)")
  [ -f "/proc/$process/root/var/lib/authlink/kept" ]
  serves billing 511
}

# upgrade_with ARGUMENT...: the release as it is, but for these.
upgrade_with() {
  helm upgrade authlink "$chart" --namespace authlink --reset-then-reuse-values --wait --timeout 90s "$@"
}

upgrade() {
  local before arguments
  steady
  before=$(ready_since)
  upgrade_with --set logLevel=debug,concurrency=4
  operator rollout status statefulset/authlink --timeout=60s
  arguments=$(operator get pods --field-selector status.phase=Running -o jsonpath='{.items[*].spec.containers[*].args}')
  [[ $arguments = *--log-level=debug* ]]
  until_true 20 led_by_running_pod
  serves billing 512
  unchanged "$before" "$(ready_since)"
}

# ready_replicas DEPLOYMENT
ready_replicas() { operator get deployment "$1" -o jsonpath='{.status.readyReplicas}'; }

apart() {
  local before
  administrate "create role authlink login password 'store-secret'" "create database authlink owner authlink"
  operator create secret generic authlink-store --from-file=ca.crt="$AUTHLINK_TEST_DIR/tls/ca.pem" \
    --from-literal=uri="postgresql://authlink:store-secret@$AUTHLINK_TEST_POSTGRESQL/authlink?sslmode=verify-full"
  before=$(ready_since)
  upgrade_with --set store.postgres.uriSecretRef.name=authlink-store \
    --set store.postgres.caRef.kind=Secret,store.postgres.caRef.name=authlink-store
  operator rollout status deployment/authlink --timeout=60s
  operator rollout status deployment/authlink-gateway --timeout=60s
  [[ $(ready_replicas authlink) = 2 && $(ready_replicas authlink-gateway) = 2 ]]
  operator wait --for=delete pod/authlink-0 --timeout=60s
  [ -z "$(operator get statefulsets -o name)" ]
  until_true 20 led_by_running_pod
  serves billing 513
  unchanged "$before" "$(ready_since)"
}

# The process is killed first: a pod that is deleted is still asked to end, would give the Lease back, and prove nothing.
takeover() {
  local old process killed acquired took
  old=$(leader)
  process=$(process_of "POD_NAME=$old")
  killed=$(now)
  kill -KILL "$process"
  operator delete pod "$old" --grace-period=0 --force
  until_true 20 differs "$old" leader
  acquired=$(date -d "$(operator get lease authlink-operator -o jsonpath='{.spec.acquireTime}')" +%s%6N)
  took=$((acquired - killed))
  remark "$((took / 1000)) ms"
  ((took <= 5000000))
}

# The Database `wrong`, under another name and with the right password.
leads_on() {
  render wrong.yaml | sed -e 's/wrong/late/' -e 's/mistyped-secret/rotated-secret/' | in_shop apply -f -
  becomes Ready 30 late
  fails_and_recovers
  operator rollout status deployment/authlink --timeout=60s # the pod that replaces the deleted one
}

scale() {
  local pod leaders=0
  upgrade_with --set replicas=3
  operator rollout status deployment/authlink --timeout=60s
  until_true 20 led_by_running_pod
  for pod in $(running_pods ,app.kubernetes.io/component=operator); do
    ! grep -x 'authlink_leader 1' <<<"$(metrics "$pod")" || leaders=$((leaders + 1))
  done
  echo "$leaders leaders"
  [ "$leaders" = 1 ]
}

# calling NAME CALL...: starts a pod that makes these calls, see caller.yaml, and waits until each was answered.
calling() {
  local name=$1
  shift
  in_shop create configmap "$name" --from-literal=calls="$(printf '%s\n' "$@")"
  sed "s/\<NAME\>/$name/" "$e2e/manifests/caller.yaml" | in_shop apply -f -
  until_true 40 answered "$name" $#
}

# answered NAME COUNT: whether so many different calls had an answer that is 200.
answered() { (($(in_shop logs "$1" | awk '$2 == 200 {print $3}' | sort -u | wc -l) == $2)); }

# answers NAME FROM [TO]: the status of each call that began between these times of `now`.
answers() { in_shop logs "$1" | awk -v from="$2" -v to="${3:-9e15}" '$1 * 1e6 >= from && $1 * 1e6 < to {print $2}'; }

# has_made NAME COUNT FROM: whether it has made so many calls since.
has_made() { (($(answers "$1" "$3" | wc -l) >= $2)); }

quiet() {
  in_shop delete pod "$1" --grace-period=0 --force
  in_shop delete configmap "$1"
}

# all_answered NAME COUNT FROM [TO]: at least so many calls began between these times, and each was answered.
all_answered() {
  local made lost
  made=$(answers "$1" "$3" "${4:-}" | wc -l)
  lost=$({ answers "$1" "$3" "${4:-}" | grep -vx 200 || true; } | sort | uniq -c | tr -s '\n ' ' ')
  remark "$made calls, lost:${lost:- none}"
  ((made >= $2)) && [ -z "$lost" ]
}

service=http://authlink.authlink.svc.cluster.local
through_gateway=("$service/v1/apis/$namespace/welcome/" "$service/v1/databases/$namespace/orders/queries/roleNamed {\"params\":[\"app\"]}")

pod_calls() {
  calling errand "${through_gateway[@]}"
  quiet errand
}

# ends_with NAME URL STATUS FROM: whether the last three of these calls that began since this time of `now` had that status.
ends_with() {
  local last
  last=$(in_shop logs "$1" | awk -v url="$2" -v from="$4" '$3 == url && $1 * 1e6 >= from {print $2}' | tail -n 3 | xargs)
  [ "$last" = "$3 $3 $3" ]
}

# gets NAME STATUS FROM URL...: waits for that.
gets() {
  local name=$1 status=$2 from=$3 url
  shift 3
  for url; do
    until_true 20 ends_with "$name" "$url" "$status" "$from" || { echo "$name does not get $status from $url" && return 1; }
  done
}

# Before, both callers get all of it. The policies stay: the pods of what follows start under them.
policies() {
  local before begin page=${through_gateway[0]}
  local pages=("$service:8080/metrics" "${service/authlink./authlink-operator.}:8080/metrics")
  before=$(ready_since)
  calling application "$page" "${pages[@]}"
  calling prometheus "$page" "${pages[@]}"
  in_shop label pod prometheus --overwrite role=prometheus
  render policies.yaml >"$work/policies.yaml"
  upgrade_with --values "$work/policies.yaml"
  begin=$(now)
  gets application 000 "$begin" "${pages[@]}"
  gets prometheus 000 "$begin" "$page"
  begin=$(now)
  gets application 200 "$begin" "$page"
  gets prometheus 200 "$begin" "${pages[@]}"
  quiet application
  quiet prometheus
  unchanged "$before" "$(ready_since)"
}

# A connection that is open outlives its rule, as with most network plugins: it is the next login that fails.
egress() {
  local name
  in_shop apply -f - <<R
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {clusterIP: None, ports: [{port: 1}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: outside, labels: {kubernetes.io/service-name: outside}}
addressType: IPv4
endpoints: [{addresses: [${AUTHLINK_TEST_POSTGRESQL%:*}]}]
ports: [{port: 1}]
R
  render wrong.yaml | sed -e 's/wrong/named/' -e 's/mistyped-secret/rotated-secret/' -e 's/VerifyFull/VerifyCa/' \
    -e "s/host: .*/host: outside.$namespace.svc.cluster.local/" | in_shop apply -f -
  becomes Ready 30 named
  in_shop delete databases.authlink.dev/named service/outside
  for name in "${everything[@]}"; do change "$name" '{"pool": {"maxLifetime": "1s"}}'; done
  for name in "${everything[@]}"; do until_true 20 up_to_date "$name"; done
  grep -v "port: ${AUTHLINK_TEST_MARIADB#*:}$" "$work/policies.yaml" >"$work/closed.yaml"
  upgrade_with --values "$work/closed.yaml"
  becomes Healthy=False 30 billing
  echo "Ready: $(condition billing Ready reason)"
  [ "$(condition billing Ready reason)" = ConnectionRefused ] # kube-router says so; where packets are dropped it is Timeout
  becomes Ready 10 orders sessions catalog # they have logged in meanwhile as often as billing has tried to
  upgrade_with --values "$work/policies.yaml"
  becomes Ready 30 billing
  for name in "${everything[@]}"; do change "$name" '{"pool": null}'; done
}

# has_gateways COUNT: so many, all ready, and none that still ends.
has_gateways() {
  [ "$(ready_replicas authlink-gateway)" = "$1" ] &&
    (($(operator get pods -l app.kubernetes.io/component=gateway -o name | wc -l) == $1))
}

gateways_roll() {
  local begin
  calling roller "${through_gateway[@]}"
  begin=$(now)
  operator rollout restart deployment/authlink-gateway
  operator rollout status deployment/authlink-gateway --timeout=60s
  until_true 60 has_gateways 2 # they serve on while nodes still send calls to them
  all_answered roller 50 "$begin"
  quiet roller
}

# Nothing measures their load here, so it is the lower bound that is seen.
autoscaled() {
  local begin
  calling climber "${through_gateway[@]}"
  begin=$(now)
  upgrade_with --set gateway.autoscaling.enabled=true,gateway.autoscaling.minReplicas=3
  until_true 60 has_gateways 3
  # Until then the count is the autoscaler's.
  upgrade_with --force-conflicts --set gateway.autoscaling.enabled=false
  until_true 60 has_gateways 2
  all_answered climber 50 "$begin"
  quiet climber
}

# An operator that may look at one namespace does not know of any other. The rights of before are gone with the upgrade.
one_namespace() {
  kubectl get namespace elsewhere || kubectl create namespace elsewhere
  upgrade_with --set "watchNamespaces={$namespace}"
  operator rollout status statefulset/authlink --timeout=60s
  until_true 20 led_by_running_pod
  [ -z "$(kubectl get clusterrole authlink --ignore-not-found -o name)" ]
  in_shop get role authlink
  kubectl -n elsewhere apply -f - <<R
apiVersion: authlink.dev/v1alpha1
kind: ServiceRegistration
metadata: {name: unseen}
spec: {serviceName: unseen, instanceId: "1", addresses: [10.99.0.1], ports: [{name: http, port: 80}], healthCheck: {type: None}}
R
  serves orders 503
  [ "$(kubectl -n elsewhere get serviceregistrations.authlink.dev unseen -o jsonpath='{.status.observedGeneration}')" = "" ]
  gateway_calls
}

# Two web servers at addresses of their own, registered as instances of one service; one of them crashes.
backend() { BIND=10.99.0.$1 "$e2e/systems/nginx" "$AUTHLINK_TEST_DIR/systems/web-$1" "$web_port" "$2"; }

instance_fails() {
  local number killed recovered allowed lost web_port=$((${AUTHLINK_TEST_NGINX#*:} + 100))
  for number in 2 3; do
    ip addr add "10.99.0.$number/32" dev host0
    backend $number start
    in_shop apply -f - <<R
apiVersion: authlink.dev/v1alpha1
kind: ServiceRegistration
metadata: {name: web-$number}
spec:
  serviceName: web
  instanceId: "$number"
  addresses: [10.99.0.$number]
  ports: [{name: http, port: $web_port}]
  drainSeconds: 0
  healthCheck: {type: Http, http: {path: /}, interval: 1s, timeout: 900ms, unhealthyThreshold: 2, jitterPercent: 0}
R
  done
  in_shop wait --for=condition=Ready --timeout=30s serviceregistrations.authlink.dev/web-{2,3}
  calling visitor "http://web.$namespace.svc.cluster.local:$web_port/"
  killed=$(now)
  backend 2 kill
  until_true 20 sees web '10.99.0.2 ready=false'
  until_true 20 has_made visitor 30 "$(now)"
  recovered=$((killed + 2900000)) # the threshold times the interval, and the timeout of the last probe
  allowed=$(answers visitor "$killed" "$recovered" | wc -l)
  lost=$(answers visitor "$killed" | grep -cvx 200 || true)
  remark "$lost of $(answers visitor "$killed" | wc -l) calls failed, $allowed calls in 2.9 s"
  ((lost > 0 && lost <= allowed))
  # Those that were made last all went to the other one.
  [ -z "$(in_shop logs visitor | tail -n 20 | awk '$2 != 200')" ]
  backend 2 start
  until_true 20 sees web '10.99.0.2 ready=true'
  quiet visitor
  in_shop delete --timeout=30s serviceregistrations.authlink.dev/web-{2,3}
}

# sees SERVICE WORDS
sees() { [[ $(endpoints "$1") = *"$2"* ]]; }

component() { "$e2e/cluster/component" "$AUTHLINK_TEST_DIR/cluster" "$@"; }

# A minute is longer than the gateway believes what it was told of a caller. The controllers go with the API server, as they
# would with their machine: those that live on declare the node lost on its return, and are slow to look at objects again.
api_outage() {
  local stopped started
  calling patient "${through_gateway[@]}"
  until_true 40 has_made patient 50 "$(now)" # so that each gateway has let it in once, with all but one chance in millions
  stopped=$(now)
  component stop kube-controller-manager
  component stop kube-apiserver
  sleep 60
  started=$(now)
  component start kube-apiserver
  component start kube-controller-manager
  all_answered patient 300 "$stopped" "$started"
  quiet patient
  serves billing 514 60 # a watch is tried again after up to 10 s, and fails once more, because what it goes on from is too old
  remark "status updated $(seconds_since "$started") s after the start of the API server"
}
