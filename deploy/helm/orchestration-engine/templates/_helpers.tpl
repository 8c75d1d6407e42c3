{{- define "engine.name" -}}
{{- default "orchestrator" .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "engine.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "engine.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "engine.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "engine.owner" -}}
{{- default (include "engine.fullname" .) .Values.kubernetes.owner -}}
{{- end -}}

{{- /* Objects of the whole cluster carry the namespace, so that releases of one name in two namespaces stay apart. */ -}}
{{- define "engine.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "engine.fullname" .) -}}
{{- end -}}

{{- define "engine.policyName" -}}
{{- printf "%s.%s.orchestrator.internal" (include "engine.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "engine.allocatorAccount" -}}
{{- printf "%s-allocator" (include "engine.fullname" .) -}}
{{- end -}}

{{- define "engine.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "engine.selector" -}}
app.kubernetes.io/name: {{ include "engine.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "engine.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "engine.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: orchestration-engine
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* Given a dict of root and component. */ -}}
{{- define "engine.componentLabels" -}}
{{ include "engine.labels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "engine.componentSelector" -}}
{{ include "engine.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "engine.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "engine.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Addresses with passwords, by reference. */ -}}
{{- define "engine.serverEnvironment" -}}
{{- $secret := .Values.servers.secret -}}
- name: DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ $secret.name }}, key: {{ $secret.databaseUrlKey }}}}
- name: REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ $secret.name }}, key: {{ $secret.redisUrlKey }}}}
{{- with $secret.databaseMaintenanceUrlKey }}
- name: DATABASE_MAINTENANCE_URL
  valueFrom: {secretKeyRef: {name: {{ $secret.name }}, key: {{ . }}}}
{{- end }}
{{- end -}}

{{- define "engine.bytes" -}}
{{- $text := . | toString -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $suffix := regexFind "[KMGT]i$" $text -}}
{{- if $suffix -}}
{{- mul (trimSuffix $suffix $text | int64) (index $units $suffix) -}}
{{- else -}}
{{- $text | int64 -}}
{{- end -}}
{{- end -}}

{{- /* Egress to a server: dict of peer, which has port(s) and networks. */ -}}
{{- define "engine.egress" -}}
- ports:
  {{- range (.ports | default (list .port)) }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
  {{- with .networks }}
  to:
  {{- range . }}
  - ipBlock:
      cidr: {{ . }}
      {{- with $.except }}
      except: {{ toJson . }}
      {{- end }}
  {{- end }}
  {{- end }}
{{- end -}}
