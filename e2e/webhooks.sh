# shellcheck shell=bash disable=SC2154 # sourced by `run`, after layouts.sh
# The checks of `run` that are about events: what was accepted is received, whatever goes away meanwhile. The receiver counts, which
# is an nginx outside of the cluster that logs the id of each request.

# received: the ids of all events that arrived, as often as they did.
received() { cat "$AUTHLINK_TEST_DIR/systems/nginx/hooks.log"; }

# accepted: the ids of all events of the producer that were answered by 202.
accepted() { in_shop logs producer | grep -o '"id":"evt_[0-9a-f]*","state":"Accepted"' | cut -d '"' -f 4; }

# has_accepted COUNT
has_accepted() { (($(accepted | wc -l) >= $1)); }

# all_received: whether each event that was accepted has arrived.
all_received() {
  local missing
  missing=$(comm -23 <(accepted | sort -u) <(received | sort -u) | wc -l)
  echo "$missing of $(accepted | wc -l) accepted events were not received"
  [ "$missing" = 0 ]
}

webhook_ready() { in_shop wait --for=condition=Ready --timeout=60s webhooks.authlink.dev/audit; }

# webhook_count FIELD COUNT: what the status counts.
webhook_count() { [ "$(in_shop get webhooks.authlink.dev audit -o "jsonpath={.status.deliveries.$1}")" = "$2" ]; }

# One event, and the clean-up of a webhook that is deleted.
webhook_delivers() {
  local token address answer
  render webhooks.yaml | in_shop apply -f -
  webhook_ready
  in_shop delete webhooks.authlink.dev/crm --timeout=30s
  token=$(in_shop create token checkout --audience authlink)
  address=$(operator get service authlink -o jsonpath='{.spec.clusterIP}')
  answer=$(gateway "/v1/events/$namespace" -d '{"type": "user.created", "subject": "u-1", "data": {"name": "Ada"}}')
  echo "$answer"
  [[ $answer = *'"state":"Accepted"'* ]]
  until_true 30 webhook_count delivered 1
  [ "$(received | sort -u | wc -l)" = 1 ]
  gateway "/v1/webhooks/$namespace/audit/attempts" | grep -F '"outcome":"Delivered"'
}

# received_at_least COUNT: so many events.
received_at_least() { (($(received | sort -u | wc -l) >= $1)); }

directory_syncs() {
  local token address answer
  render directory.yaml | in_shop apply -f -
  in_shop wait --for=condition=Synced --timeout=60s ldapdirectories.authlink.dev/corp
  token=$(in_shop create token checkout --audience authlink)
  address=$(operator get service authlink -o jsonpath='{.spec.clusterIP}')
  answer=$(gateway "/v1/ldap/$namespace/corp/authenticate" -d '{"username": "user000042", "password": "pw-42"}')
  grep -F user000042 <<<"$answer"
  answer=$(gateway "/v1/ldap/$namespace/corp/authenticate" -d '{"username": "user000042", "password": "guess"}')
  grep -F urn:authlink:login-refused <<<"$answer"
  until_true 60 received_at_least 1000
}

# A gateway is killed, not asked to end, and then the PostgreSQL that is the store of all.
no_event_is_lost() {
  local pods pod process count
  webhook_ready
  in_shop apply -f "$e2e/manifests/producer.yaml"
  until_true 60 has_accepted 200
  read -ra pods <<<"$(running_pods ,app.kubernetes.io/component=gateway)"
  pod=${pods[0]}
  process=$(process_of "POD_NAME=$pod")
  kill -KILL "$process"
  operator delete pod "$pod" --grace-period=0 --force
  count=$(accepted | wc -l)
  until_true 60 has_accepted $((count + 200))
  postgresql kill
  postgresql start
  count=$(accepted | wc -l)
  until_true 60 has_accepted $((count + 200))
  # Its log goes with the pod.
  accepted >"$work/accepted"
  in_shop delete pod producer --grace-period=0 --force
  accepted() { cat "$work/accepted"; }
  until_true 90 all_received
  remark "$(accepted | wc -l) accepted, received $(received | wc -l) times"
  operator rollout status deployment/authlink-gateway --timeout=60s
}
