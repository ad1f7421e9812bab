{{- define "hplb.secret" -}}
{{ .Values.secret.existing | default (printf "%s-hplb" .Release.Name) }}
{{- end }}

{{- define "hplb.labels" -}}
app.kubernetes.io/name: hplb
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "hplb.selector" -}}
app.kubernetes.io/name: hplb
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "hplb.pod-security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hplb.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "hplb.key" -}}
- name: HPLB_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ include "hplb.secret" . }}, key: api-key}
{{- end }}
