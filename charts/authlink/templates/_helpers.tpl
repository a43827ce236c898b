{{/* The table of kinds, generated: plural, finalizer and the permissions that the gateway asks for. */}}
{{- define "authlink.kindTable" -}}
{{ .Files.Get "files/kinds.yaml" }}
{{- end }}

{{/* The plurals of all kinds, as a JSON list. */}}
{{- define "authlink.kinds" -}}
{{- $plurals := list -}}
{{- range (include "authlink.kindTable" . | fromYaml).kinds -}}
{{- $plurals = append $plurals .plural -}}
{{- end -}}
{{ toJson $plurals }}
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

{{/* Releases in the same namespace must not share a Lease. */}}
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

{{/* Labels that select pods. Arguments: a dictionary of root and component. */}}
{{- define "authlink.selectorLabels" -}}
app.kubernetes.io/name: {{ include "authlink.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of an object. Those of the chart override commonLabels, since selectors depend on them. Arguments: as above. */}}
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

{{/* Read permissions of operator and gateway: the objects and their references. */}}
{{- define "authlink.readingRules" -}}
- apiGroups: [authlink.dev]
  resources: {{ include "authlink.kinds" . }}
  verbs: [list, watch]
# list and watch are used for metadata only, to detect changes; values are read one by one with get.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get, list, watch]
{{- if not .Values.watchNamespaces }}
# To discover the Service ranges, whose addresses are not allowed as targets.
- apiGroups: [networking.k8s.io]
  resources: [servicecidrs]
  verbs: [list]
{{- end }}
{{- end }}

{{/* Permissions of the operator, cluster-wide or in each watched namespace. */}}
{{- define "authlink.rules" -}}
{{- $kinds := (include "authlink.kindTable" . | fromYaml).kinds -}}
{{ include "authlink.readingRules" . }}
- apiGroups: [authlink.dev]
  resources:
  {{- range $kinds }}
  - {{ .plural }}/status
  {{- end }}
  verbs: [patch]
{{- range $kinds }}
{{- if .finalizer }}
- apiGroups: [authlink.dev]
  resources: [{{ .plural }}]
  verbs: [patch]
{{- end }}
{{- end }}
{{- if .Values.rbac.bindings }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch, delete]
{{- end }}
# Only Services of authlink are watched, by label; get finds the owner of a conflicting one.
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
