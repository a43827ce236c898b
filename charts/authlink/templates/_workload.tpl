{{/* Whether operators and gateways have separate workloads: with a store that several pods can share. */}}
{{- define "authlink.apart" -}}
{{- if .Values.store.postgres.uriSecretRef.name }}true{{ end }}
{{- end }}

{{/* Whether gateways have a Deployment of their own. */}}
{{- define "authlink.gatewaysApart" -}}
{{- if and (include "authlink.apart" .) .Values.gateway.enabled }}true{{ end }}
{{- end }}

{{/* The kind of the operator's workload. */}}
{{- define "authlink.operatorKind" -}}
{{ include "authlink.apart" . | eq "true" | ternary "Deployment" "StatefulSet" }}
{{- end }}

{{/* Labels and spec of a pod. Arguments: a dictionary of root, component, roles, gateway (whether it listens), account, resources. */}}
{{- define "authlink.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $operates := has "operator" .roles -}}
{{- $alone := not (include "authlink.apart" .root) -}}
{{- $ca := ternary (dict) (default dict $values.store.postgres.caRef) $alone -}}
{{- $tls := and .gateway $values.gateway.tls.enabled -}}
metadata:
  labels:
    {{- merge (include "authlink.labelsOf" . | fromYaml) $values.podLabels | toYaml | nindent 4 }}
  {{- with $values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ .account }}
  automountServiceAccountToken: true
  # Service links would inject AUTHLINK_* variables, which the process reads as its settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .gateway | ternary 40 30 }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  containers:
  - name: authlink
    image: {{ include "authlink.image" $root | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args:
    - run
    - --roles={{ join "," .roles }}
    {{- if $tls }}
    - --gateway-tls-cert=/etc/authlink/tls/tls.crt
    - --gateway-tls-key=/etc/authlink/tls/tls.key
    {{- end }}
    {{- with $values.egress.allowCIDRs }}
    - --egress-allow-cidrs={{ join "," . }}
    {{- end }}
    {{- with $values.egress.clusterCIDRs }}
    - --cluster-cidrs={{ join "," . }}
    {{- end }}
    {{- with $values.watchNamespaces }}
    - --watch-namespaces={{ join "," . }}
    {{- end }}
    {{- if $operates }}
    - --lease-name={{ include "authlink.leaseName" $root }}
    - --lease-namespace=$(POD_NAMESPACE)
    {{- end }}
    {{- /* The pod of a StatefulSet has the name of the one before it, which may still run where nobody reaches it. */}}
    - --identity=$(POD_NAME){{ if $alone }}_$(POD_UID){{ end }}
    - --log-level={{ $values.logLevel }}
    - --log-format={{ $values.logFormat }}
    {{- if $operates }}
    - --concurrency={{ $values.concurrency }}
    - --status-refresh={{ $values.statusRefresh }}
    {{- end }}
    {{- with $values.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    env:
    - name: POD_NAME
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
    - name: POD_NAMESPACE
      valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
    {{- if $alone }}
    - name: POD_UID
      valueFrom: {fieldRef: {fieldPath: metadata.uid}}
    - name: AUTHLINK_STORE
      value: sqlite:///var/lib/authlink/authlink.db
    {{- else }}
    - name: AUTHLINK_STORE_FILE
      value: /etc/authlink/store/uri
    {{- if $ca.name }}
    # A file, since an environment variable can be too short for the certificates.
    - name: PGSSLROOTCERT
      value: /etc/authlink/store-ca/ca.crt
    {{- end }}
    {{- end }}
    {{- with $values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    ports:
    - name: http
      containerPort: 8080
    {{- if .gateway }}
    - name: gateway
      containerPort: 8081
    {{- end }}
    livenessProbe:
      httpGet: {path: /livez, port: http}
      timeoutSeconds: 5
    readinessProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: 5
    {{- if and .gateway (not $alone) }}
    # Nodes send new connections until all of them have removed the endpoint.
    lifecycle: {preStop: {sleep: {seconds: 5}}}
    {{- end }}
    resources:
      {{- toYaml .resources | nindent 6 }}
    securityContext:
      {{- toYaml $values.securityContext | nindent 6 }}
    volumeMounts:
    - name: tmp
      mountPath: /tmp
    {{- if $alone }}
    - name: data
      mountPath: /var/lib/authlink
    {{- end }}
    {{- if $tls }}
    - name: tls
      mountPath: /etc/authlink/tls
      readOnly: true
    {{- end }}
    {{- if not $alone }}
    - name: store
      mountPath: /etc/authlink/store
      readOnly: true
    {{- end }}
    {{- if $ca.name }}
    - name: store-ca
      mountPath: /etc/authlink/store-ca
      readOnly: true
    {{- end }}
  volumes:
  {{- if $tls }}
  - name: tls
    secret: {secretName: {{ include "authlink.tlsSecretName" $root }}}
  {{- end }}
  {{- if not $alone }}
  # A file is read again when the Secret changes; a variable would stay as it was at the start.
  - name: store
    {{- with $values.store.postgres.uriSecretRef }}
    secret: {{ dict "secretName" .name "items" (list (dict "key" .key "path" "uri")) | toJson }}
    {{- end }}
  {{- end }}
  {{- if $ca.name }}
  - name: store-ca
    {{- $items := list (dict "key" $ca.key "path" "ca.crt") }}
    {{- if eq $ca.kind "Secret" }}
    secret: {{ dict "secretName" $ca.name "items" $items | toJson }}
    {{- else }}
    configMap: {{ dict "name" $ca.name "items" $items | toJson }}
    {{- end }}
  {{- end }}
  # The MongoDB driver reads CA certificates from files only. In memory, so that they are not written to a disk.
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: 16Mi}
  {{- if and $alone (not $values.store.persistence.enabled) }}
  - name: data
    emptyDir: {}
  {{- end }}
  topologySpreadConstraints:
  {{- with $values.topologySpreadConstraints }}
    {{- toYaml . | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "authlink.selectorLabels" . | nindent 8 }}
    {{- if not $alone }}
    matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
