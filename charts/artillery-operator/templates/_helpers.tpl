{{/* The objects of a generated file, with the names and the namespace of this release: dict "root" $ "file" "files/x.yaml" */}}
{{- define "artillery-operator.objects" -}}
{{- .root.Files.Get .file
  | replace "artillery-operator-system" "@namespace@"
  | replace "artillery-operator-" (printf "%s-" .root.Values.name)
  | replace "@namespace@" .root.Release.Namespace -}}
{{- end -}}

{{/* The settings of the operator that are variables */}}
{{- define "artillery-operator.settings" -}}
LOG_FORMAT: {{ .Values.log.format | quote }}
RUST_LOG: {{ .Values.log.level | quote }}
WORKER_DEFAULTS: /etc/artillery-operator/worker-defaults.yaml
WORKER_IMAGE: {{ .Values.worker.image | quote }}
{{- with .Values.worker.imagePullPolicy }}
WORKER_IMAGE_PULL_POLICY: {{ . | quote }}
{{- end }}
{{- if ne (toString .Values.worker.user) "1000" }}
WORKER_USER: {{ .Values.worker.user | quote }}
{{- end }}
{{- if not .Values.worker.liveResults }}
LIVE_RESULTS: "false"
{{- end }}
{{- with .Values.selector }}
LOADTEST_SELECTOR: {{ . | quote }}
{{- end }}
{{- if ne .Values.leaderElection.lease "84f84c74.artillery.io" }}
LEADER_ELECT_LEASE: {{ .Values.leaderElection.lease | quote }}
{{- end }}
{{- with .Values.leaderElection.namespace }}
LEADER_ELECT_NAMESPACE: {{ . | quote }}
{{- end }}
{{- if ne (int .Values.probes.port) 8081 }}
HEALTH_PROBE_BIND_ADDRESS: {{ printf ":%d" (int .Values.probes.port) | quote }}
{{- end }}
{{- end -}}

{{/* Whether metrics are served. Authorizing their clients needs a cluster-wide permission. */}}
{{- define "artillery-operator.metrics" -}}
{{- if and .Values.metrics.enabled (not .Values.namespaces) }}true{{ end -}}
{{- end -}}
