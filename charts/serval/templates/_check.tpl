{{- /* What the schema cannot say: all that does not fit together, at once. */ -}}
{{- define "serval.check" -}}
{{- $v := .Values -}}
{{- $wrong := list -}}
{{- $ingressTLS := and $v.ingress.enabled (or $v.ingress.tls (hasKey $v.ingress.annotations "alb.ingress.kubernetes.io/certificate-arn")) -}}
{{- if and $v.bridge.enabled (not (or $ingressTLS $v.tls.secretName $v.tls.terminatedElsewhere)) -}}
{{- $wrong = append $wrong "Port 80 carries credentials, so TLS has to end somewhere. Set one of: ingress.enabled with ingress.tls (or the annotation alb.ingress.kubernetes.io/certificate-arn); tls.secretName, a kubernetes.io/tls Secret that the bridge serves with; or tls.terminatedElsewhere=true, where a load balancer or a mesh in front of the Service ends it." -}}
{{- end -}}
{{- if and $v.bridge.enabled (eq $v.bridge.database.type "sqlite") (gt (int $v.bridge.replicaCount) 1) -}}
{{- $wrong = append $wrong (printf "bridge.replicaCount is %d, and SQLite serves one: set bridge.database.type=postgresql, with SERVAL_DATABASE_URL in the Secret %s, or bridge.replicaCount=1." (int $v.bridge.replicaCount) $v.bridge.existingSecret) -}}
{{- end -}}
{{- $lb := $v.bridge.service -}}
{{- $internal := or (eq (get $lb.annotations "service.beta.kubernetes.io/aws-load-balancer-scheme") "internal") (eq (get $lb.annotations "service.beta.kubernetes.io/aws-load-balancer-internal") "true") -}}
{{- if and $v.bridge.enabled (eq $lb.type "LoadBalancer") (not (or $internal $lb.loadBalancerSourceRanges)) -}}
{{- $wrong = append $wrong "bridge.service.type is LoadBalancer, and nothing says that the internet is not let in. Set bridge.service.annotations.\"service.beta.kubernetes.io/aws-load-balancer-scheme\"=internal, or bridge.service.loadBalancerSourceRanges." -}}
{{- end -}}
{{- if and $v.config $v.bridge.existingConfigMap -}}
{{- $wrong = append $wrong "config and bridge.existingConfigMap are both set: leave one of them out." -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.bridge.enabled) -}}
{{- $wrong = append $wrong "ingress.enabled without bridge.enabled: there is nothing behind it." -}}
{{- end -}}
{{- if and $v.bridge.enabled (eq $v.bridge.serviceAccount.name $v.worker.serviceAccount.name) -}}
{{- $wrong = append $wrong (printf "bridge.serviceAccount.name and worker.serviceAccount.name are both %s: the bridge must not have the worker's AWS role." $v.bridge.serviceAccount.name) -}}
{{- end -}}
{{- if and $v.worker.serviceAccount.annotations (not $v.worker.serviceAccount.create) -}}
{{- $wrong = append $wrong (printf "worker.serviceAccount.annotations are for a service account that is created here: set worker.serviceAccount.create=true, or annotate %s yourself." $v.worker.serviceAccount.name) -}}
{{- end -}}
{{- if $v.worker.enabled -}}
{{- if and (hasPrefix "http://" (include "serval.worker.upstream" (dict "root" .))) (not $v.worker.upstream.plaintext) -}}
{{- if $v.worker.upstream.url -}}
{{- $wrong = append $wrong "worker.upstream.url is http, and the worker's token and the inventory would go over the network as they are. Use https, or set worker.upstream.plaintext=true where the network encrypts by itself." -}}
{{- else if not $v.networkPolicy.enabled -}}
{{- $wrong = append $wrong "Without networkPolicy.enabled the worker does not speak plain http with the bridge. Set tls.secretName, with worker.upstream.caSecretName where its authority is your own; or worker.upstream.url to an https address; or worker.upstream.plaintext=true where the network encrypts by itself." -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $part := dict "bridge" $v.bridge "worker" $v.worker -}}
{{- $limit := include "serval.memoryLimit" $part -}}
{{- if and $limit (not (regexMatch "^[0-9]+([.][0-9]+)?([kMGT]|[KMGT]i)?$" $limit)) -}}
{{- $wrong = append $wrong (printf "%s.resources.limits.memory is %s: write it as 512Mi or 1.5Gi, so that GOMEMLIMIT can be made of it." $name $limit) -}}
{{- end -}}
{{- end -}}
{{- if not (or $v.bridge.enabled $v.worker.enabled) -}}
{{- $wrong = append $wrong "bridge.enabled and worker.enabled are both false: there is nothing to install." -}}
{{- end -}}
{{- if $wrong -}}
{{- fail (printf "\n\nThese values do not fit together:\n  - %s\n" (join "\n  - " $wrong)) -}}
{{- end -}}
{{- end }}
