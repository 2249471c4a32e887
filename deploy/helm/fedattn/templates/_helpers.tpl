{{- define "fedattn.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "fedattn.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "fedattn.labels" -}}
{{ include "fedattn.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "fedattn.image" -}}
{{ .root.Values.image.prefix }}fedattn-{{ .component }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Of every pod: no rights, nobody else's files, its own user. */}}
{{- define "fedattn.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "fedattn.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "fedattn.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "fedattn.selector" . | nindent 8 }}
{{- end }}

{{/* Settings of a service from a map of their names. */}}
{{- define "fedattn.settings" -}}
{{- range $name, $value := .settings }}
- {name: {{ printf "FEDATTN_%s_%s" $.service $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* A JSON map from the Secrets of certificates to the names in them. */}}
{{- define "fedattn.certificates" -}}
{{- $full := include "fedattn.fullname" . }}
{{- $names := dict (printf "%s-gateway-tls" $full) "gateway" }}
{{- range $i := until (int .Values.aggregator.replicas) }}
{{- $_ := set $names (printf "%s-aggregator-%d-tls" $full $i) (printf "aggregator-%d" $i) }}
{{- end }}
{{- range .Values.participants }}
{{- $_ := set $names (printf "%s-%s-tls" $full .name) .name }}
{{- end }}
{{- if .Values.nats.enabled }}
{{- $_ := set $names .Values.nats.config.nats.tls.secretName "nats" }}
{{- end }}
{{- $names | toJson }}
{{- end }}

{{- define "fedattn.natsUrl" -}}
{{- if .Values.natsUrl }}{{ .Values.natsUrl }}
{{- else if .Values.nats.enabled }}tls://{{ .Values.nats.fullnameOverride }}:4222{{ end }}
{{- end }}

{{/* Servers of NATS that keep a copy. */}}
{{- define "fedattn.natsReplicas" -}}
{{- if .Values.nats.enabled }}{{ ternary (min 3 (int .Values.nats.config.cluster.replicas)) 1 .Values.nats.config.cluster.enabled }}
{{- else }}1{{ end }}
{{- end }}

{{- define "fedattn.dns" -}}
- ports:  # names
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{- define "fedattn.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
