{{- /*
One workload, a Deployment: all components differ in arguments, in what they mount and in which account they run as.
Given a dict of root, component, values, arguments, port (name of it), mounts (which of: token, agentSecret, catalogue,
hookSecrets), account and strategy.
*/ -}}
{{- define "engine.workload" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $component := .component -}}
{{- $full := include "engine.fullname" $root -}}
{{- $scaled := and $values.autoscaling $values.autoscaling.enabled -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $full }}-{{ $component }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "engine.componentLabels" . | nindent 4 }}
spec:
  {{- if not $scaled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  progressDeadlineSeconds: 600
  {{- if eq .strategy "Recreate" }}
  strategy: {type: Recreate}
  {{- else }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  {{- end }}
  selector:
    matchLabels: {{- include "engine.componentSelector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "engine.componentLabels" . | nindent 8 }}
        {{- with $root.Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/settings: {{ include (print $root.Template.BasePath "/configmap.yaml") $root | sha256sum }}
        {{- with $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ .account }}
      automountServiceAccountToken: {{ eq .account (include "engine.allocatorAccount" $root) }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: 45
      {{- with $root.Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext: {{- include "engine.podSecurityContext" $root | nindent 8 }}
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets:
      {{- range . }}
      - name: {{ . }}
      {{- end }}
      {{- end }}
      containers:
      - name: {{ $component }}
        image: {{ include "engine.image" $root | quote }}
        imagePullPolicy: {{ $root.Values.image.pullPolicy }}
        args: {{ toJson .arguments }}
        securityContext: {{- include "engine.containerSecurityContext" $root | nindent 10 }}
        ports:
        - {name: http, containerPort: {{ .port }}, protocol: TCP}
        envFrom:
        - configMapRef: {name: {{ $full }}-settings}
        env:
        - name: {{ ternary "ORCHESTRATOR_PORT" "ORCHESTRATOR_PROBE_PORT" (eq $component "gateway") }}
          value: {{ .port | quote }}
        {{- include "engine.serverEnvironment" $root | nindent 8 }}
        startupProbe:
          httpGet: {path: /startup, port: http}
          periodSeconds: 2
          timeoutSeconds: 5
          failureThreshold: 90
        livenessProbe:
          httpGet: {path: /health, port: http}
          periodSeconds: 10
          timeoutSeconds: 5
          failureThreshold: 6
        readinessProbe:
          httpGet: {path: /ready, port: http}
          periodSeconds: 5
          timeoutSeconds: 5
          failureThreshold: 3
        {{- if eq $component "gateway" }}
        # Endpoints take a moment to forget a pod that is about to end.
        lifecycle: {preStop: {sleep: {seconds: 5}}}
        {{- end }}
        resources: {{- toYaml $values.resources | nindent 10 }}
        volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: data, mountPath: /var/lib/orchestrator}
        {{- if and (has "token" .mounts) (not $root.Values.tokens.jwksUrl) }}
        - {name: token-key, mountPath: /etc/orchestrator/token, readOnly: true}
        {{- end }}
        {{- if has "agentSecret" .mounts }}
        - {name: agent-secret, mountPath: /etc/orchestrator/agents, readOnly: true}
        {{- end }}
        {{- if and (has "catalogue" .mounts) $root.Values.catalogue }}
        - {name: catalogue, mountPath: /etc/orchestrator/catalogue, readOnly: true}
        {{- end }}
        {{- if and (has "hookSecrets" .mounts) $root.Values.hooks.secrets }}
        {{- range $root.Values.hooks.secrets }}
        - {name: {{ printf "hooks-%s" .tenant | quote }}, mountPath: {{ printf "/etc/orchestrator/hooks/%s" .tenant | quote }}, readOnly: true}
        {{- end }}
        {{- end }}
      volumes:
      - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
      - {name: data, emptyDir: {sizeLimit: 10Gi}}
      {{- if and (has "token" .mounts) (not $root.Values.tokens.jwksUrl) }}
      - name: token-key
        secret:
          secretName: {{ $root.Values.tokens.keySecret.name }}
          defaultMode: 0440
          items: [{key: {{ $root.Values.tokens.keySecret.key }}, path: token-key.pem}]
      {{- end }}
      {{- if has "agentSecret" .mounts }}
      - name: agent-secret
        secret:
          secretName: {{ $root.Values.agentSecret.name }}
          defaultMode: 0440
          items: [{key: {{ $root.Values.agentSecret.key }}, path: agent-secret}]
      {{- end }}
      {{- if and (has "catalogue" .mounts) $root.Values.catalogue }}
      - name: catalogue
        configMap:
          name: {{ $full }}-catalogue
          items: [{key: catalogue.yaml, path: catalogue.yaml}]
      {{- end }}
      {{- if and (has "hookSecrets" .mounts) $root.Values.hooks.secrets }}
      {{- range $root.Values.hooks.secrets }}
      - name: {{ printf "hooks-%s" .tenant | quote }}
        secret: {secretName: {{ .secretName }}, defaultMode: 0440}
      {{- end }}
      {{- end }}
      topologySpreadConstraints:
      {{- range $root.Values.topologySpread }}
      - maxSkew: 1
        topologyKey: {{ . }}
        whenUnsatisfiable: ScheduleAnyway
        labelSelector:
          matchLabels: {{- include "engine.componentSelector" $ | nindent 12 }}
      {{- end }}
      {{- with $root.Values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
