{{- define "assay.environment" -}}
{{- $v := .Values -}}
{{- $set := dict "OMP_NUM_THREADS" (include "assay.cpus" .) -}}
{{- if $v.gpu.count -}}
{{- $_ := merge $set (dict "ASSAY_DEVICE" "cuda" "ASSAY_DTYPE" $v.gpu.dtype) -}}
{{- end -}}
{{- if eq $v.redis.kind "bundled" -}}
{{- $_ := set $set "ASSAY_REDIS_URL" (printf "redis://%s-redis:6379/0" (include "assay.fullname" .)) -}}
{{- end -}}
{{- if eq $v.runs.store "off" -}}{{- $_ := set $set "ASSAY_RUNS" "off" -}}{{- end -}}
{{- if $v.apiKeys.secret -}}{{- $_ := set $set "ASSAY_API_KEYS_FILE" "/etc/assay/keys/keys.toml" -}}{{- end -}}
{{- with include "assay.repository" . -}}{{- $_ := set $set "ASSAY_REPOSITORY" . -}}{{- end -}}
{{- if ne $v.models.hub.cache "off" -}}
{{- $_ := merge $set (dict "HF_HOME" "/var/cache/assay" "HF_HUB_OFFLINE" "0") -}}
{{- end -}}
{{- range $variable, $value := mergeOverwrite $set $v.settings }}
- {name: {{ $variable }}, value: {{ include "assay.text" $value | quote }}}
{{- end }}
{{- if eq $v.redis.kind "external" }}
{{ include "assay.secretVariable" (dict "name" "ASSAY_REDIS_URL" "from" $v.redis.external) }}
{{- end }}
{{- if eq $v.runs.store "postgresql" }}
{{ include "assay.secretVariable" (dict "name" "ASSAY_RUNS" "from" $v.runs.postgresql) }}
{{- end }}
{{- range $variable, $from := $v.secretSettings }}
{{ include "assay.secretVariable" (dict "name" $variable "from" $from) }}
{{- end }}
{{- end -}}

{{- define "assay.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- with .Values.gpu -}}
{{- if .count -}}{{- $_ := set $resources.limits .resource .count -}}{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "assay.mounts" -}}
{{- $v := .Values -}}
- {name: tmp, mountPath: /tmp}
{{- if has $v.runs.store (list "volume" "pod") }}
- {name: runs, mountPath: /var/lib/assay}
{{- end }}
{{- if $v.apiKeys.secret }}
- {name: keys, mountPath: /etc/assay/keys, readOnly: true} # no subPath: it would never change
{{- end }}
{{- if $v.models.cards }}
- {name: cards, mountPath: /etc/assay/cards, readOnly: true}
{{- end }}
{{- range $v.models.engineKeys }}
- {name: engine-{{ . }}, mountPath: /etc/assay/engines/{{ . }}, readOnly: true}
{{- end }}
{{- if $v.models.volume }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- if ne $v.models.hub.cache "off" }}
- {name: hub, mountPath: /var/cache/assay}
{{- end }}
{{- end -}}

{{- define "assay.volumes" -}}
{{- $v := .Values -}}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
{{- if eq $v.runs.store "volume" }}
- name: runs
  persistentVolumeClaim: {claimName: {{ $v.runs.volume.claim | default (printf "%s-runs" (include "assay.fullname" .)) }}}
{{- else if eq $v.runs.store "pod" }}
- {name: runs, emptyDir: {sizeLimit: 1Gi}}
{{- end }}
{{- with $v.apiKeys }}
{{- if .secret }}
- name: keys
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items: [{key: {{ .key | quote }}, path: keys.toml}]
{{- end }}
{{- end }}
{{- if $v.models.cards }}
- name: cards
  configMap:
    name: {{ include "assay.fullname" . }}-cards
    items:
      {{- range $model, $_ := $v.models.cards }}
      - {key: {{ $model | replace "/" "." }}.toml, path: {{ $model }}/card.toml}
      {{- end }}
{{- end }}
{{- range $v.models.engineKeys }}
- name: engine-{{ . }}
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with $v.models.volume }}
- name: models
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if eq $v.models.hub.cache "pod" }}
- {name: hub, emptyDir: {sizeLimit: {{ $v.models.hub.size }}}}
{{- else if eq $v.models.hub.cache "claim" }}
- name: hub
  persistentVolumeClaim: {claimName: {{ $v.models.hub.claim }}}
{{- end }}
{{- end -}}
