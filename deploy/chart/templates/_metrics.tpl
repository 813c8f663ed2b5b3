{{/* A headless service of metrics, and what scrapes it: dict "root" "name" "values" "selector". */}}
{{- define "cilium.metrics" -}}
{{- $v := .values }}{{ $root := .root }}
{{- $scraped := include "cilium.on" $v.serviceMonitor.enabled }}
{{- if and (include "cilium.on" $v.enabled) (or $scraped (include "cilium.on" $v.metricsService)) }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  namespace: {{ include "cilium.namespace" $root }}
  labels:
    app.kubernetes.io/name: {{ .name }}
    {{- include "cilium.labels" $root | nindent 4 }}
spec:
  clusterIP: None
  selector: {{- toYaml .selector | nindent 4 }}
  ports:
    - name: metrics
      protocol: TCP
      port: {{ include "cilium.text" $v.port }}
      targetPort: prometheus
{{- if $scraped }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ .name }}
  namespace: {{ include "cilium.namespace" $root }}
  labels:
    {{- include "cilium.labels" $root | nindent 4 }}
    {{- with $v.serviceMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $v.serviceMonitor.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: {{ .name }}
  namespaceSelector:
    matchNames: [{{ include "cilium.namespace" $root }}]
  endpoints:
    - port: metrics
      path: /metrics
      interval: {{ $v.serviceMonitor.interval }}
      honorLabels: true
      {{- with $v.serviceMonitor.scrapeTimeout }}
      scrapeTimeout: {{ . }}
      {{- end }}
      {{- with $v.serviceMonitor.relabelings }}
      relabelings: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.serviceMonitor.metricRelabelings }}
      metricRelabelings: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
{{- end }}
{{- end }}
