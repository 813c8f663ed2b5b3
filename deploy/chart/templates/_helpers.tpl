{{/* Namespace of the objects. */}}
{{- define "cilium.namespace" -}}
{{ default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* A value as text: whole numbers without exponent, nothing for null, a list with spaces. */}}
{{- define "cilium.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else if kindIs "slice" . -}}
{{ join " " . }}
{{- else if not (kindIs "invalid" .) -}}
{{ . }}
{{- end -}}
{{- end }}

{{/* "true" where a value is, written as a boolean or as text. */}}
{{- define "cilium.on" -}}
{{- if eq (toString .) "true" }}true{{ end -}}
{{- end }}

{{/* Labels of every object. */}}
{{- define "cilium.labels" -}}
app.kubernetes.io/part-of: cilium
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A reference of an image: dict "image" "default". */}}
{{- define "cilium.image" -}}
{{- $i := .image -}}
{{- if $i.override }}{{ $i.override }}{{ else -}}
{{ $i.repository }}:{{ default .default $i.tag }}{{ if and $i.useDigest $i.digest }}@{{ $i.digest }}{{ end }}
{{- end -}}
{{- end }}

{{/* Where pods in the node's network reach the API server. */}}
{{- define "cilium.apiServer" -}}
{{- if .Values.k8sServiceHost }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.k8sServiceHost | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ include "cilium.text" .Values.k8sServicePort | default "6443" | quote }}
{{- end }}
{{- end }}

{{/* Volumes of extraHostPathMounts. */}}
{{- define "cilium.hostPathVolumes" -}}
{{- range . }}
- name: {{ .name }}
  hostPath:
    path: {{ .hostPath }}
    {{- with .hostPathType }}
    type: {{ . }}
    {{- end }}
{{- end }}
{{- end }}

{{/* Mounts of extraHostPathMounts. */}}
{{- define "cilium.hostPathMounts" -}}
{{- range . }}
- name: {{ .name }}
  mountPath: {{ .mountPath }}
  readOnly: {{ .readOnly | default false }}
  {{- with .mountPropagation }}
  mountPropagation: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Pools as the operator's option has them: name=ipv4-cidrs:A,B;ipv4-mask-size:N;... */}}
{{- define "cilium.pools" -}}
{{- $pools := list }}
{{- range $name, $pool := . }}
  {{- $parts := list }}
  {{- range $version := list "ipv4" "ipv6" }}
    {{- with get $pool $version }}
      {{- $cidrs := .cidrs }}
      {{- if kindIs "slice" $cidrs }}{{ $cidrs = join "," $cidrs }}{{ end }}
      {{- $parts = append $parts (printf "%s-cidrs:%s;%s-mask-size:%s" $version ($cidrs | replace " " "") $version (include "cilium.text" .maskSize)) }}
    {{- end }}
  {{- end }}
  {{- $pools = append $pools (printf "%s=%s" $name (join ";" $parts)) }}
{{- end }}
{{- join "," $pools }}
{{- end }}

{{/* What a node has ahead of need, of text or a map: default=8,blue=16 */}}
{{- define "cilium.preAllocation" -}}
{{- if kindIs "map" . }}
{{- $out := list }}
{{- range $name, $n := . }}{{ $out = append $out (printf "%s=%s" $name (include "cilium.text" $n)) }}{{ end }}
{{- join "," $out }}
{{- else }}
{{- include "cilium.text" . | replace " " "," }}
{{- end }}
{{- end }}
