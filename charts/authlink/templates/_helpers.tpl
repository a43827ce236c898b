{{/* The plurals of all kinds, separated by spaces: a new kind is one word here. */}}
{{- define "authlink.kinds" -}}
databases externalapis serviceregistrations
{{- end }}

{{/* Those of them that are kept, by a finalizer, until they are cleaned up. */}}
{{- define "authlink.keptKinds" -}}
serviceregistrations
{{- end }}

{{- define "authlink.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of the objects; 43 characters leave room for suffixes such as -servicebinding. */}}
{{- define "authlink.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 43 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 43 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 43 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "authlink.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "authlink.fullname" .) }}
{{- end }}

{{/* Two releases in one namespace must not share a Lease. */}}
{{- define "authlink.leaseName" -}}
{{ include "authlink.fullname" . }}-operator
{{- end }}

{{- define "authlink.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{- define "authlink.gatewayAccountName" -}}
{{ .Values.gateway.serviceAccount.name | default (printf "%s-gateway" (include "authlink.fullname" .)) }}
{{- end }}

{{- define "authlink.tlsSecretName" -}}
{{ .Values.gateway.tls.secretName | default (printf "%s-gateway-tls" (include "authlink.fullname" .)) }}
{{- end }}

{{/* By which pods are selected. Arguments: a dictionary of root and component. */}}
{{- define "authlink.selectorLabels" -}}
app.kubernetes.io/name: {{ include "authlink.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of an object. The chart's own ones win over commonLabels: selectors depend on them. Arguments: as above. */}}
{{- define "authlink.labelsOf" -}}
{{- $own := include "authlink.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "authlink" -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{ merge $own .root.Values.commonLabels | toYaml }}
{{- end }}

{{- define "authlink.labels" -}}
{{ include "authlink.labelsOf" (dict "root" . "component" "operator") }}
{{- end }}

{{/* What operator and gateway read alike: the objects, and what they name. */}}
{{- define "authlink.readingRules" -}}
- apiGroups: [authlink.dev]
  resources: {{ splitList " " (include "authlink.kinds" .) | toJson }}
  verbs: [list, watch]
# list and watch are used for metadata only (a rotated Secret is noticed at once); values are read one by one with get.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get, list, watch]
{{- if not .Values.watchNamespaces }}
# Which addresses are those of the cluster's own Services, and so must be neither registered nor called.
- apiGroups: [networking.k8s.io]
  resources: [servicecidrs]
  verbs: [list]
{{- end }}
{{- end }}

{{/* What the operator may do to the objects it watches: cluster-wide or in each watched namespace, always the same. */}}
{{- define "authlink.rules" -}}
{{- $kinds := splitList " " (include "authlink.kinds" .) -}}
{{ include "authlink.readingRules" . }}
- apiGroups: [authlink.dev]
  resources:
  {{- range $kinds }}
  - {{ . }}/status
  {{- end }}
  verbs: [patch]
- apiGroups: [authlink.dev]
  resources: {{ splitList " " (include "authlink.keptKinds" .) | toJson }}
  verbs: [patch]
{{- if .Values.rbac.bindings }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch, delete]
{{- end }}
# Only those that authlink made are watched, by label; get tells whose a Service is that stands in the way.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
