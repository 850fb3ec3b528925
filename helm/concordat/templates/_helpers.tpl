{{- define "concordat.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "concordat.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "concordat.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "concordat.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "concordat.selector" -}}
app.kubernetes.io/name: {{ include "concordat.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "concordat.labels" -}}
{{ include "concordat.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: concordat
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "concordat.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "concordat.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "concordat.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{/* The domain that the node pods' names are below, for everybody in this Kubernetes cluster. */}}
{{- define "concordat.nodesDomain" -}}
{{- printf "%s-nodes.%s.svc.%s" (include "concordat.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}

{{/* Where node number .ordinal of this release is reached, by peers of every site. */}}
{{- define "concordat.nodeHost" -}}
{{- $root := .root -}}
{{- printf "%s-node-%d.%s" (include "concordat.fullname" $root) (int .ordinal) (default (include "concordat.nodesDomain" $root) $root.Values.nodes.advertiseDomain) -}}
{{- end -}}

{{/* host:port of the nodes of this release, comma-separated: of .count (all without one) at .port. */}}
{{- define "concordat.nodeAddresses" -}}
{{- $root := .root -}}
{{- $port := .port -}}
{{- $all := list -}}
{{- range $ordinal := until (min (int $root.Values.nodes.replicas) (int (default 1000 .count)) | int) -}}
{{- $all = append $all (printf "%s:%d" (include "concordat.nodeHost" (dict "root" $root "ordinal" $ordinal)) (int $port)) -}}
{{- end -}}
{{- join "," $all -}}
{{- end -}}

{{/* host:port of the relays of this release's gateways, comma-separated. With autoscaling, of those that there may be. */}}
{{- define "concordat.relayAddresses" -}}
{{- $root := . -}}
{{- $count := ternary .Values.gateways.autoscaling.maxReplicas .Values.gateways.replicas .Values.gateways.autoscaling.enabled | int -}}
{{- $domain := default (printf "%s-gateways.%s.svc.%s" (include "concordat.fullname" .) .Release.Namespace .Values.clusterDomain) .Values.gateways.advertiseDomain -}}
{{- $all := list -}}
{{- range $ordinal := until $count -}}
{{- $all = append $all (printf "%s-gateway-%d.%s:7402" (include "concordat.fullname" $root) $ordinal $domain) -}}
{{- end -}}
{{- join "," $all -}}
{{- end -}}

{{/* A map of settings as TOML. Helm reads every number as a float, and the services want whole ones. */}}
{{- define "concordat.settings" -}}
{{- range $key, $value := . }}
{{- if kindIs "float64" $value }}
{{ $key }} = {{ int64 $value }}
{{- else }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "concordat.secretName" -}}
{{- $root := .root -}}
{{- if eq $root.Values.tls.mode "secrets" -}}
{{- required (printf "tls.mode is secrets, so tls.secrets.%s has to name one" .role) (get $root.Values.tls.secrets .role) -}}
{{- else -}}
{{- printf "%s-%s-tls" (include "concordat.fullname" $root) .role -}}
{{- end -}}
{{- end -}}

{{/* Whom a certificate of .role stands for: all pods of a role share one. */}}
{{- define "concordat.identity" -}}
{{- $domain := default (printf "concordat.%s" .root.Release.Namespace) .root.Values.tls.trustDomain -}}
{{- $name := get (dict "node" "any" "client" (printf "%s-check" (include "concordat.fullname" .root))) .role | default (include "concordat.fullname" .root) -}}
{{- printf "spiffe://%s/concordat/%s/%s" $domain .role $name -}}
{{- end -}}

{{- define "concordat.tlsEnv" -}}
- { name: CONCORDAT_TLS_CERT, value: /tls/tls.crt }
- { name: CONCORDAT_TLS_KEY, value: /tls/tls.key }
- { name: CONCORDAT_TLS_CA, value: /tls/ca.crt }
{{- end -}}

{{- define "concordat.tlsVolume" -}}
- name: tls
  secret:
    secretName: {{ include "concordat.secretName" . }}
    defaultMode: 0440
{{- end -}}

{{- define "concordat.tlsMount" -}}
- { name: tls, mountPath: /tls, readOnly: true }
{{- end -}}

{{/* Spread over zones and machines; .component, .spread and .root. */}}
{{- define "concordat.topologySpread" -}}
{{- range $key, $when := dict "topology.kubernetes.io/zone" .spread.zones "kubernetes.io/hostname" .spread.hosts }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: {{ $when }}
  labelSelector:
    matchLabels:
      {{- include "concordat.selector" $.root | nindent 6 }}
      app.kubernetes.io/component: {{ $.component }}
{{- end }}
{{- end -}}

{{/* One-off pods speak to nodes as an operator. */}}
{{- define "concordat.jobPod" -}}
restartPolicy: {{ .restartPolicy }}
serviceAccountName: {{ include "concordat.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
containers:
  - name: {{ .name }}
    image: {{ include "concordat.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: {{ toJson .command }}
    env:
      - { name: CONCORDAT_LOG, value: warn }
      {{- if eq .role "client" }}
      - { name: CONCORDAT_CERT, value: /tls/tls.crt }
      - { name: CONCORDAT_KEY, value: /tls/tls.key }
      - { name: CONCORDAT_CA, value: /tls/ca.crt }
      {{- else }}
      {{- include "concordat.tlsEnv" .root | nindent 6 }}
      - name: CONCORDAT_SERVER
        value: {{ printf "%s-ordering.%s.svc.%s:7100" (include "concordat.fullname" .root) .root.Release.Namespace .root.Values.clusterDomain | quote }}
      {{- end }}
    securityContext: {{- toYaml .root.Values.securityContext | nindent 6 }}
    resources:
      requests: { cpu: 50m, memory: 64Mi }
      limits: { memory: 256Mi }
    volumeMounts:
      - { name: tmp, mountPath: /tmp }
      {{- include "concordat.tlsMount" .root | nindent 6 }}
volumes:
  - name: tmp
    emptyDir: { sizeLimit: 64Mi }
  {{- include "concordat.tlsVolume" (dict "root" .root "role" .role) | nindent 2 }}
{{- end -}}
