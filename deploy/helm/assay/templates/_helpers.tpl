{{- define "assay.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "assay.fullname" -}}
{{- $name := include "assay.name" . -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $release | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "assay.labels" -}}
{{ include "assay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "assay.selector" -}}
app.kubernetes.io/name: {{ include "assay.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Large numbers of values are floats, which Go would print as 4.194304e+06. */}}
{{- define "assay.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) -}}{{ printf "%.0f" . }}{{- else -}}{{ toString . }}{{- end -}}
{{- end -}}

{{- define "assay.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}{{ $image.repository }}@{{ $image.digest }}
{{- else -}}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{- end -}}
{{- end -}}

{{- define "assay.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "assay.fullname" .) -}}
{{- end -}}

{{/* A server that itself pauses at SIGTERM needs no pause before it. */}}
{{- define "assay.preStopSeconds" -}}
{{- ternary 0 (int .Values.shutdown.pauseSeconds) (gt (float64 (.Values.settings.ASSAY_SHUTDOWN_DELAY | default 0)) 0.0) -}}
{{- end -}}

{{/* Requests are drained, then what the models still hold. */}}
{{- define "assay.graceSeconds" -}}
{{- $delay := float64 (.Values.settings.ASSAY_SHUTDOWN_DELAY | default 0) -}}
{{- $drain := float64 (.Values.settings.ASSAY_DRAIN_TIMEOUT | default 30) -}}
{{- $needed := add (include "assay.preStopSeconds" .) (ceil (addf $delay $drain $drain)) 10 -}}
{{- $given := .Values.shutdown.graceSeconds -}}
{{- if and (not (kindIs "invalid" $given)) (lt (int $given) (int $needed)) -}}
{{- fail (printf "shutdown.graceSeconds: %d is shorter than the pause and twice ASSAY_DRAIN_TIMEOUT: at least %d" (int $given) (int $needed)) -}}
{{- end -}}
{{- kindIs "invalid" $given | ternary $needed $given | int -}}
{{- end -}}

{{- define "assay.maxReplicas" -}}
{{- eq .Values.autoscaling.kind "none" | ternary .Values.replicas .Values.autoscaling.maxReplicas | int -}}
{{- end -}}

{{- define "assay.cpus" -}}
{{- $cpu := toString .Values.resources.requests.cpu -}}
{{- if hasSuffix "m" $cpu -}}{{ max 1 (divf (trimSuffix "m" $cpu) 1000 | ceil | int) }}
{{- else -}}{{ max 1 (float64 $cpu | ceil | int) }}{{- end -}}
{{- end -}}

{{/* The bytes of a quantity of memory. */}}
{{- define "assay.bytes" -}}
{{- $units := dict "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $text := include "assay.text" . -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $units (regexFind "[A-Za-z]+$" $text) | default 1.0) | printf "%.0f" -}}
{{- end -}}

{{- define "assay.repository" -}}
{{- $folders := list -}}
{{- if .Values.models.cards -}}{{- $folders = append $folders "/etc/assay/cards" -}}{{- end -}}
{{- if .Values.models.volumeHasCards -}}{{- $folders = append $folders "/models" -}}{{- end -}}
{{- join "," $folders -}}
{{- end -}}

{{- define "assay.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "assay.secretVariable" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .from.secret | quote }}, key: {{ .from.key | quote }}}}
{{- end -}}
