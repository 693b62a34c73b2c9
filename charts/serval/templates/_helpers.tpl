{{- /* Names, labels and what both daemons' pods have in common. Every part takes a dict: root, and component where there is one. */ -}}

{{- define "serval.labels" -}}
{{- $labels := dict
  "app.kubernetes.io/name" "serval"
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/version" (.root.Chart.AppVersion | toString)
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- if .component }}{{- $_ := set $labels "app.kubernetes.io/component" .component }}{{- end }}
{{- toYaml (mergeOverwrite (deepCopy .root.Values.commonLabels) $labels (.labels | default dict)) }}
{{- end }}

{{- define "serval.selector" -}}
app.kubernetes.io/name: serval
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* Of pods: nothing that a new version of the chart alone would change. */ -}}
{{- define "serval.podLabels" -}}
{{- toYaml (mergeOverwrite (deepCopy .root.Values.commonLabels) (deepCopy .labels) (fromYaml (include "serval.selector" .))) }}
{{- end }}

{{- define "serval.annotations" -}}
{{- $all := mergeOverwrite (deepCopy .root.Values.commonAnnotations) (.annotations | default dict) -}}
{{- if $all }}
annotations: {{- toYaml $all | nindent 2 }}
{{- end }}
{{- end }}

{{- define "serval.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "serval.labels" . | nindent 2 }}
{{- with include "serval.annotations" . }}
{{ trim . }}
{{- end }}
{{- end }}

{{- define "serval.image" -}}
{{- $image := index .root.Values .component "image" -}}
{{- $name := $image.repository -}}
{{- with .root.Values.image.registry }}{{- $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{- end -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* What the Pod Security standard "restricted" asks for, and a root file system that is read only. */ -}}
{{- define "serval.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "serval.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Nine tenths of the limit, in bytes; what the Go runtime does not count has the rest. The downward API tells the limit and cannot
multiply, so it is computed of the values. Where something else changes the limit, extraEnv has the last word. */ -}}
{{- define "serval.memory" -}}
{{- with include "serval.memoryLimit" . }}
{{- $unit := get (dict "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) (regexFind "[A-Za-z]*$" .) | default 1 }}
- name: GOMEMLIMIT
  value: {{ mulf (regexFind "^[0-9.]+" . | float64) $unit 0.9 | floor | int64 | quote }}
{{- end }}
{{- end }}

{{- /* The limit of memory as text, also where it is a number of bytes; empty where there is none. */ -}}
{{- define "serval.memoryLimit" -}}
{{- $limit := dig "limits" "memory" "" (.resources | default dict) -}}
{{- if kindIs "float64" $limit }}{{ int64 $limit }}{{ else }}{{ $limit }}{{ end }}
{{- end }}

{{- define "serval.settings" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{- define "serval.scheduling" -}}
{{- $c := index .root.Values .component -}}
{{- with $c.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $c.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $c.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $c.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "serval.spread" -}}
{{- $selector := dict "matchLabels" (fromYaml .selector) -}}
{{- with .constraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml (merge (deepCopy .) (dict "labelSelector" $selector)) | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "serval.pullSecrets" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* The bridge's environment. Secrets come as files, so that they are in no environment and no object but their own. */ -}}
{{- define "serval.bridge.env" -}}
{{- $b := .root.Values.bridge -}}
- name: SERVAL_LISTEN
  value: ":8080"
- name: SERVAL_ADMIN_LISTEN
  value: ":9090"
- name: SERVAL_CONFIG
  value: /etc/serval/config/serval.yaml
{{- if $b.publicUrl }}
- name: SERVAL_PUBLIC_URL
  value: {{ trimSuffix "/" $b.publicUrl | quote }}
{{- end }}
{{- range list "SERVAL_OIDC_ISSUER" "SERVAL_OIDC_CLIENT_ID" "SERVAL_OIDC_CLIENT_SECRET" "SERVAL_SECRET" "SERVAL_EXTERNAL_ID_SECRET" }}
{{- if not (hasKey $b.settings .) }}
- name: {{ . }}_FILE
  value: /etc/serval/secrets/{{ . }}
{{- end }}
{{- end }}
{{- range $b.secretSettings }}
- name: {{ . }}_FILE
  value: /etc/serval/secrets/{{ . }}
{{- end }}
{{- if eq $b.database.type "postgresql" }}
- name: SERVAL_DATABASE_URL_FILE
  value: /etc/serval/secrets/SERVAL_DATABASE_URL
{{- else }}
- name: SERVAL_DATABASE_URL
  value: sqlite:///var/lib/serval/serval.db
{{- end }}
{{- if .root.Values.tls.secretName }}
- name: SERVAL_TLS_CERT_FILE
  value: /etc/serval/tls/tls.crt
- name: SERVAL_TLS_KEY_FILE
  value: /etc/serval/tls/tls.key
{{- end }}
{{- if and $b.tokenReview (ne .root.Values.worker.serviceAccount.name "serval-worker-sa") }}
- name: SERVAL_WORKER_SUBJECT
  value: system:serviceaccount:{{ .root.Release.Namespace }}:{{ .root.Values.worker.serviceAccount.name }}
{{- end }}
{{- include "serval.settings" $b.settings }}
{{- include "serval.memory" $b }}
{{- with $b.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "serval.bridge.mounts" -}}
- {name: config, mountPath: /etc/serval/config, readOnly: true}
- {name: secrets, mountPath: /etc/serval/secrets, readOnly: true}
{{- if .root.Values.tls.secretName }}
- {name: tls, mountPath: /etc/serval/tls, readOnly: true}
{{- end }}
{{- with .root.Values.bridge.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "serval.bridge.volumes" -}}
{{- $b := .root.Values.bridge -}}
- name: config
  configMap: {name: {{ $b.existingConfigMap | default "serval-bridge" }}, optional: true}
# Optional, so that the bridge itself says which of its keys are missing.
- name: secrets
  secret: {secretName: {{ $b.existingSecret }}, optional: true, defaultMode: 0440}
{{- if .root.Values.tls.secretName }}
- name: tls
  secret: {secretName: {{ .root.Values.tls.secretName }}, defaultMode: 0440}
{{- end }}
{{- with $b.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Where the bridge answers within the cluster. */ -}}
{{- define "serval.bridge.address" -}}
{{- if .root.Values.tls.secretName -}}
https://serval-bridge.{{ .root.Release.Namespace }}.svc
{{- else -}}
http://serval-bridge.{{ .root.Release.Namespace }}.svc
{{- end -}}
{{- end }}

{{- define "serval.worker.upstream" -}}
{{- .root.Values.worker.upstream.url | default (include "serval.bridge.address" .) -}}
{{- end }}

{{- define "serval.worker.env" -}}
{{- $w := .root.Values.worker -}}
{{- $url := include "serval.worker.upstream" . -}}
- name: SERVAL_ADMIN_LISTEN
  value: ":9090"
- name: SERVAL_UPSTREAM_URL
  value: {{ $url | quote }}
{{- if hasPrefix "http://" $url }}
- name: SERVAL_UPSTREAM_PLAINTEXT
  value: "true"
{{- end }}
- name: SERVAL_UPSTREAM_TOKEN_FILE
  value: /var/run/secrets/serval/{{ if $w.upstream.tokenSecretName }}{{ $w.upstream.tokenSecretKey }}{{ else }}token{{ end }}
{{- if $w.upstream.caSecretName }}
- name: SERVAL_UPSTREAM_CA_FILE
  value: /etc/serval/upstream-ca/{{ $w.upstream.caSecretKey }}
{{- end }}
{{- if gt (int $w.shards) 1 }}
- name: SERVAL_SHARD
  value: {{ .shard | quote }}
- name: SERVAL_TOTAL_SHARDS
  value: {{ $w.shards | quote }}
{{- end }}
{{- include "serval.settings" $w.settings }}
{{- include "serval.memory" $w }}
{{- with $w.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "serval.worker.mounts" -}}
- {name: upstream, mountPath: /var/run/secrets/serval, readOnly: true}
{{- if .root.Values.worker.upstream.caSecretName }}
- {name: upstream-ca, mountPath: /etc/serval/upstream-ca, readOnly: true}
{{- end }}
{{- with .root.Values.worker.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "serval.worker.volumes" -}}
{{- $w := .root.Values.worker -}}
- name: upstream
{{- if $w.upstream.tokenSecretName }}
  secret: {secretName: {{ $w.upstream.tokenSecretName }}, defaultMode: 0440}
{{- else }}
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {audience: serval-bridge, expirationSeconds: 3600, path: token}
{{- end }}
{{- if $w.upstream.caSecretName }}
- name: upstream-ca
  secret:
    secretName: {{ $w.upstream.caSecretName }}
    defaultMode: 0440
    items: [{key: {{ $w.upstream.caSecretKey }}, path: {{ $w.upstream.caSecretKey }}}]
{{- end }}
{{- with $w.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
