# shellcheck shell=bash disable=SC2154
# The part of `up` that makes pods run: containerd with a bridge network, kube-scheduler, kubelet, kube-proxy, kube-router, which
# enforces NetworkPolicies, and CoreDNS, and four local volumes for claims. Sourced by `up`.
#
# Needs the packages of `prepare pods`. All that containerd and kubelet would keep in the machine's own folders is moved into
# DIR, or carries the cluster's name, so that two clusters can run side by side and `down` finds what to clear away.

cluster=authlink-$(printf '%s' "$dir" | cksum | cut -d ' ' -f 1)
socket=$dir/containerd/containerd.sock
mkdir -p "$dir"/{containerd,cni,kubelet,volumes/{1,2,3,4}}
echo "$cluster" >"$dir/name"
# From pod to pod, packets cross nothing but a bridge: they must pass the filters there as well.
[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || modprobe br_netfilter
sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1

# A control group to put the pods in. Two kubelets in one group would end each other's pods as left-overs.
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  for controller in $(</sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true
  done 2>/dev/null
  mkdir -p "/sys/fs/cgroup/$cluster"
else
  for hierarchy in /sys/fs/cgroup/*/; do mkdir -p "$hierarchy$cluster"; done
fi

# --- containerd
cat >"$dir/cni/10-bridge.conflist" <<C
{"cniVersion": "1.0.0", "name": "$cluster", "plugins": [
  {"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$dir/cni/addresses",
            "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}, {"type": "loopback"}]}
C
# restrict_oom_score_adj: in a container without CAP_SYS_RESOURCE, lowering a score is refused.
cat >"$dir/containerd/config.toml" <<C
version = 2
root = "$dir/containerd/root"
state = "$dir/containerd/state"
[grpc]
address = "$socket"
[plugins."io.containerd.internal.v1.opt"]
path = "$dir/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "$dir/containerd/runc"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$dir/cni"
C
define containerd containerd --config "$dir/containerd/config.toml"
ready containerd "ctr -a '$socket' version"

# --- the node
echo "nameserver $address" >"$dir/kubelet/resolv.conf"
cat >"$dir/kubelet/config.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $dir/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /$cluster
failSwapOn: false
clusterDNS: [$address]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$socket
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: "0%", imagefs.available: "0%", memory.available: 100Mi}
podLogsDir: $dir/logs/pods
resolvConf: $dir/kubelet/resolv.conf
oomScoreAdj: 0
C
define kubelet "$program" kubelet --kubeconfig kubelet.kubeconfig --config "$dir/kubelet/config.yaml" \
  --root-dir "$dir/kubelet" --node-ip "$address" --hostname-override "$node"
ready kubelet "'$dir/bin/kubectl' --kubeconfig admin.kubeconfig --request-timeout 5s wait node $node --for condition=Ready --timeout 1s"
define kube-scheduler "$program" kube-scheduler --kubeconfig kube-scheduler.kubeconfig --leader-elect=false
# Its default would raise a limit of the whole machine, which a namespace may not.
define kube-proxy "$program" kube-proxy --kubeconfig kube-proxy.kubeconfig --cluster-cidr 10.244.0.0/16 \
  --hostname-override "$node" --conntrack-max-per-core=0
define kube-router "$program" kube-router --kubeconfig kube-router.kubeconfig --hostname-override "$node" \
  --service-cluster-ip-range 10.96.0.0/16
# Its first pass over all policies puts this last. What has passed them carries this mark.
ready kube-router "iptables -w -S KUBE-ROUTER-FORWARD | grep 'mark 0x20000/0x20000 -j ACCEPT'"
cat >"$dir/Corefile" <<C
cluster.local:53 {
  bind $address
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $dir/pki/coredns.kubeconfig
  }
  cache 5
}
C
define coredns "$program" coredns -conf "$dir/Corefile"
ready coredns "exec 3<>/dev/tcp/$address/53"

start containerd
"$here/image.py" "$socket" localhost/pause:1 /pause "$(tool pause):/pause"
start kube-scheduler
start kube-proxy
start kubelet

# The volumes are local ones, because Kubernetes does not give a host path to a pod's fsGroup.
{
  cat <<C
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- {apiGroups: ["", discovery.k8s.io], resources: [endpoints, services, pods, namespaces, endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{kind: User, name: coredns, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: kube-router}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get]}
- {apiGroups: [""], resources: [pods, namespaces], verbs: [list, watch]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kube-router}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kube-router}
subjects: [{kind: User, name: kube-router, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
C
  for number in 1 2 3 4; do
    cat <<C
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: local-$number}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: local
  local: {path: $dir/volumes/$number}
  nodeAffinity:
    required:
      nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$node]}]}]
C
  done
} | kubectl apply -f - >/dev/null
start coredns
start kube-router
