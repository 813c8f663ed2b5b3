{{/*
Judges a value by the table of known names. In: dict "path" "value" "known" "out", where out is a dict of the lists "bad" and
"odd". It goes down into maps until the table has a word.
*/}}
{{- define "cilium.judge" -}}
{{- $path := .path }}{{ $value := .value }}{{ $known := .known }}{{ $out := .out }}
{{- $rule := get $known $path }}{{ $under := $rule | default .under }}
{{- if kindIs "map" $value }}
  {{- $more := false }}
  {{- range $name, $_ := $known }}{{ if hasPrefix (printf "%s." $path) $name }}{{ $more = true }}{{ end }}{{ end }}
  {{- if and (kindIs "map" $rule) (hasKey $rule "switch") (eq (include "cilium.on" (get $value (get $rule "switch"))) "true") }}
    {{- include "cilium.note" (dict "out" $out "list" "bad" "text" (printf "%s.%s=true: %s" $path (get $rule "switch") (get $rule "why"))) }}
  {{- else if and (kindIs "map" $rule) (hasKey $rule "switch") (get $value (get $rule "switch")) (ne (get $rule "switch") "enabled") }}
    {{- include "cilium.note" (dict "out" $out "list" "bad" "text" (printf "%s.%s: %s" $path (get $rule "switch") (get $rule "why"))) }}
  {{- else if or (eq $path "") $more }}
    {{- range $key, $v := $value }}
      {{- include "cilium.judge" (dict "path" (ternary $key (printf "%s.%s" $path $key) (eq $path "")) "value" $v "known" $known "out" $out "under" $under) }}
    {{- end }}
  {{- else if $rule }}
    {{- include "cilium.leaf" (dict "path" $path "value" $value "rule" $rule "out" $out) }}
  {{- else if $value }}
    {{- range $key, $v := $value }}
      {{- include "cilium.judge" (dict "path" (printf "%s.%s" $path $key) "value" $v "known" $known "out" $out "under" $under) }}
    {{- end }}
  {{- else if not $under }}
    {{- include "cilium.note" (dict "out" $out "list" "odd" "text" (printf "%s: the chart knows no value of this name" $path)) }}
  {{- end }}
{{- else if kindIs "invalid" $value }}
{{- else if $rule }}
  {{- include "cilium.leaf" (dict "path" $path "value" $value "rule" $rule "out" $out) }}
{{- else if not $under }}
  {{- include "cilium.note" (dict "out" $out "list" "odd" "text" (printf "%s: the chart knows no value of this name" $path)) }}
{{- end }}
{{- end }}

{{/* Judges a value that has a rule of its own. */}}
{{- define "cilium.leaf" -}}
{{- $text := include "cilium.text" .value }}
{{- if kindIs "slice" .value }}{{ $text = toString .value }}{{ end }}
{{- if kindIs "map" .value }}{{ $text = toString .value }}{{ end }}
{{- $type := .rule }}
{{- if kindIs "map" .rule }}{{ $type = get .rule "type" }}{{ end }}
{{- $right := true }}
{{- if eq (toString $type) "bool" }}{{ $right = regexMatch "^(true|false)$" $text }}
{{- else if eq (toString $type) "int" }}{{ $right = regexMatch "^-?[0-9]+$" $text }}
{{- else if eq (toString $type) "number" }}{{ $right = regexMatch "^[0-9.e-]+$" $text }}
{{- else if eq (toString $type) "string" }}{{ $right = not (or (kindIs "map" .value) (kindIs "slice" .value)) }}
{{- else if eq (toString $type) "list" }}{{ $right = kindIs "slice" .value }}
{{- else if eq (toString $type) "object" }}{{ $right = kindIs "map" .value }}
{{- end }}
{{- if not $right }}
  {{- include "cilium.note" (dict "out" .out "list" "bad" "text" (printf "%s=%s is no %s" .path $text (toString $type))) }}
{{- else if kindIs "map" .rule }}
  {{- if hasKey .rule "idle" }}
    {{- include "cilium.note" (dict "out" .out "list" "odd" "text" (printf "%s has no effect: %s" .path (get .rule "idle"))) }}
  {{- else if hasKey .rule "only" }}
    {{- $fine := false }}
    {{- range get .rule "only" }}{{ if eq (include "cilium.text" .) $text }}{{ $fine = true }}{{ end }}{{ end }}
    {{- if not $fine }}
      {{- include "cilium.note" (dict "out" .out "list" "bad" "text" (printf "%s=%s: %s" .path $text (get .rule "why"))) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Adds a sentence to a list. */}}
{{- define "cilium.note" -}}
{{- $_ := set .out .list (append (get .out .list) .text) }}
{{- end }}

{{/* Both lists for the values of this release, as YAML. */}}
{{- define "cilium.judgement" -}}
{{- $out := dict "bad" list "odd" list }}
{{- $known := .Files.Get "files/known.yaml" | fromYaml }}
{{- include "cilium.judge" (dict "path" "" "value" .Values "known" $known "out" $out "under" "") }}
{{- toYaml $out }}
{{- end }}
