{{- /* The chart's name, as a label. */ -}}
{{- define "toolzz-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end -}}

{{- /* The name of the objects. 63 characters is what a Service may have, and its suffix needs 9 of them. The name of a
release has 53 at most. */ -}}
{{- define "toolzz-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "toolzz-operator.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What kube-score finds critical and is so on purpose. README.md says why, check by check. */ -}}
{{- define "toolzz-operator.kubeScoreIgnored" -}}
container-resources,container-ephemeral-storage-request-and-limit,container-image-pull-policy,pod-networkpolicy
{{- end -}}

{{- /* What never changes between two versions of a release: a Deployment's selector cannot. */ -}}
{{- define "toolzz-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "toolzz-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* The pod of `helm test`. Not the selector's: it must not be taken for the operator's. */ -}}
{{- define "toolzz-operator.testLabels" -}}
app.kubernetes.io/name: {{ include "toolzz-operator.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Whether there is a Service for /metrics: a ServiceMonitor needs one. */ -}}
{{- define "toolzz-operator.metricsService" -}}
{{- if or .Values.metrics.service.enabled .Values.metrics.serviceMonitor.enabled -}}
true
{{- end -}}
{{- end -}}

{{- /* The labels of every object, the chart's own winning over the user's. */ -}}
{{- define "toolzz-operator.labels" -}}
{{- $own := include "toolzz-operator.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" (.Chart.AppVersion | toString) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- merge $own .Values.commonLabels | toYaml -}}
{{- end -}}

{{- define "toolzz-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "toolzz-operator.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name: name the ServiceAccount to use, as serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "toolzz-operator.image" -}}
{{- with .Values.image -}}
{{- $repository := required "image.repository: name the operator's image with its registry, such as registry.example.com/toolzz-operator" .repository -}}
{{- if .digest -}}
{{ $repository }}@{{ .digest }}
{{- else -}}
{{ $repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The Secret with the API token; nothing where there is to be none. */ -}}
{{- define "toolzz-operator.tokenSecretName" -}}
{{- $existing := .Values.token.existingSecret.name -}}
{{- if and $existing .Values.token.value -}}
{{- fail "token: set either token.existingSecret.name or token.value, not both" -}}
{{- else if $existing -}}
{{- $existing -}}
{{- else if .Values.token.value -}}
{{- include "toolzz-operator.fullname" . }}-token
{{- else if .Values.token.required -}}
{{- fail "token: the operator needs a Toolzz API token. Set token.existingSecret.name to a Secret of the release namespace that holds it under the key `token` (kubectl create secret generic toolzz-api-token --from-file=token=FILE), or, for a trial, token.value. Where all connections are objects of their own (ClusterToolzzConnection, ToolzzConnection), set token.required=false" -}}
{{- end -}}
{{- end -}}

{{- /* The namespaces to work in, as a JSON array. None: the whole cluster. */ -}}
{{- define "toolzz-operator.namespaces" -}}
{{- if and (eq .Values.scope "cluster") .Values.namespaces -}}
{{- fail "namespaces: only with scope=namespaces; with scope=cluster the operator works in all of them" -}}
{{- else if and (eq .Values.scope "namespaces") (not .Values.namespaces) -}}
{{- fail "namespaces: name at least one, as scope is namespaces" -}}
{{- end -}}
{{- .Values.namespaces | toJson -}}
{{- end -}}

{{- /* Which Secrets the operator may read: those of its `scope`, those of some `namespaces`, or `named` ones. */ -}}
{{- define "toolzz-operator.secretAccess" -}}
{{- $values := .Values -}}
{{- $namespaces := include "toolzz-operator.namespaces" . | fromJsonArray -}}
{{- $access := $values.secretAccess -}}
{{- if and (eq $access "cluster") (eq $values.scope "namespaces") -}}
{{- fail "secretAccess: cluster is more than scope=namespaces allows; leave it empty for the Secrets of namespaces" -}}
{{- end -}}
{{- if and $values.secretNamespaces (or (ne $access "namespaces") (eq $values.scope "namespaces")) -}}
{{- fail "secretNamespaces: only with secretAccess=namespaces and scope=cluster; with scope=namespaces the list is namespaces" -}}
{{- end -}}
{{- if and $values.secretNames (ne $access "named") -}}
{{- fail "secretNames: only with secretAccess=named" -}}
{{- end -}}
{{- if eq $access "named" -}}
{{- if not $values.secretNames -}}
{{- fail "secretNames: name at least one Secret, as secretAccess is named" -}}
{{- end -}}
{{- if eq $values.scope "namespaces" -}}
{{- range $namespace, $_ := $values.secretNames -}}
{{- if not (has $namespace $namespaces) -}}
{{- fail (printf "secretNames: %s is not among namespaces" $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
named
{{- else if and (eq $access "namespaces") (eq $values.scope "cluster") -}}
{{- if not $values.secretNamespaces -}}
{{- fail "secretNamespaces: name at least one, as secretAccess is namespaces" -}}
{{- end -}}
namespaces
{{- else -}}
scope
{{- end -}}
{{- end -}}

{{- /* The rights on Secrets. `names`: on these only. */ -}}
{{- define "toolzz-operator.secretRules" -}}
{{- $target := has "secrets" .targets -}}
- apiGroups: [""]
  resources: [secrets]
  {{- with .names }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get, list, watch]
{{- if and $target .names }}
# What resources write their virtual keys to (spec.target). RBAC cannot limit create to a name: an object being created
# has none yet.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toJson .names }}
  verbs: [patch, delete]
{{- else if $target }}
# What resources write their virtual keys to (spec.target).
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch, delete]
{{- end }}
{{- end -}}

{{- /* Where the token is mounted: a directory, since a file mounted by itself is never updated. */ -}}
{{- define "toolzz-operator.tokenDirectory" -}}
/var/run/secrets/toolzz.com.br
{{- end -}}

{{- /* The ConfigMap with certificates to trust; nothing where there is none. */ -}}
{{- define "toolzz-operator.caConfigMapName" -}}
{{- if and .Values.caBundle.pem .Values.caBundle.configMap.name -}}
{{- fail "caBundle: set either caBundle.pem or caBundle.configMap.name, not both" -}}
{{- else if .Values.caBundle.pem -}}
{{- include "toolzz-operator.fullname" . }}-ca
{{- else -}}
{{- .Values.caBundle.configMap.name -}}
{{- end -}}
{{- end -}}

{{- define "toolzz-operator.caDirectory" -}}
/var/run/toolzz-operator/ca
{{- end -}}

{{- /* The port of the Toolzz API. */ -}}
{{- define "toolzz-operator.apiPort" -}}
{{- $url := urlParse .Values.apiUrl -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- end -}}

{{- define "toolzz-operator.httpPort" -}}
{{- .Values.httpAddr | splitList ":" | last -}}
{{- end -}}

{{- /* The arguments of the container, one flag a line. */ -}}
{{- define "toolzz-operator.args" -}}
{{- $values := .Values -}}
{{- $args := list
  "run"
  (printf "--api-url=%s" $values.apiUrl)
-}}
{{- with $values.apiProxy -}}
{{- $args = append $args (printf "--api-proxy=%s" .) -}}
{{- end -}}
{{- if include "toolzz-operator.tokenSecretName" . -}}
{{- $args = append $args (printf "--api-token-file=%s/token" (include "toolzz-operator.tokenDirectory" .)) -}}
{{- end -}}
{{- if $values.token.allowAdoption -}}
{{- $args = append $args "--allow-adoption" -}}
{{- end -}}
{{- with include "toolzz-operator.namespaces" . | fromJsonArray -}}
{{- $args = append $args (printf "--namespaces=%s" (join "," .)) -}}
{{- end -}}
{{- $access := include "toolzz-operator.secretAccess" . -}}
{{- if eq $access "namespaces" -}}
{{- $args = append $args (printf "--secret-namespaces=%s" (join "," $values.secretNamespaces)) -}}
{{- else if eq $access "named" -}}
{{- $secrets := list -}}
{{- range $namespace, $names := $values.secretNames -}}
{{- range $names -}}
{{- $secrets = append $secrets (printf "%s/%s" $namespace .) -}}
{{- end -}}
{{- end -}}
{{- $args = append $args (printf "--secret-names=%s" (join "," $secrets)) -}}
{{- end -}}
{{- with $values.allowedHosts -}}
{{- $args = append $args (printf "--allowed-hosts=%s" (join "," .)) -}}
{{- end -}}
{{- if $values.allowPrivateAddresses -}}
{{- $args = append $args "--allow-private-addresses" -}}
{{- end -}}
{{- if $values.allowInsecureHttp -}}
{{- $args = append $args "--allow-insecure-http" -}}
{{- end -}}
{{- if $values.leaderElection.enabled -}}
{{- $args = concat $args (list
  "--leader-elect"
  (printf "--lease-name=%s" (include "toolzz-operator.fullname" .))
  (printf "--lease-duration=%s" $values.leaderElection.leaseDuration)
) -}}
{{- if gt (int $values.sharding.shards) 1 -}}
{{- $args = append $args (printf "--shards=%d" (int $values.sharding.shards)) -}}
{{- end -}}
{{- with $values.leaderElection.renewDeadline -}}
{{- $args = append $args (printf "--lease-renew-deadline=%s" .) -}}
{{- end -}}
{{- with $values.leaderElection.retryPeriod -}}
{{- $args = append $args (printf "--lease-retry-period=%s" .) -}}
{{- end -}}
{{- else if gt (int $values.replicas) 1 -}}
{{- fail "replicas: more than one needs leaderElection.enabled: without it all would work at once" -}}
{{- else if gt (int $values.sharding.shards) 1 -}}
{{- fail "sharding.shards: more than one needs leaderElection.enabled: a Lease says who works on a shard" -}}
{{- end -}}
{{- $args = concat $args (list
  (printf "--resync-interval=%s" $values.resyncInterval)
  (printf "--settle-period=%s" $values.settlePeriod)
  (printf "--request-timeout=%s" $values.requestTimeout)
  (printf "--concurrency=%d" (int64 $values.concurrency))
  (printf "--rate-limit=%d" (int64 $values.rateLimit))
  (printf "--deletion-deadline=%s" $values.deletionDeadline)
  (printf "--targets=%s" (join "," $values.targets))
  (printf "--http-addr=%s" $values.httpAddr)
  (printf "--log-format=%s" $values.logFormat)
  (printf "--log-level=%s" $values.logLevel)
) $values.extraArgs -}}
{{- $args | toYaml -}}
{{- end -}}
