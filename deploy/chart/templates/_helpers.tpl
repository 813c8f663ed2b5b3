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
