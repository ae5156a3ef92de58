module toolzz-operator.test/tools/flux

go 1.26.0

require (
	github.com/fluxcd/helm-controller v1.4.0
	github.com/fluxcd/kustomize-controller v1.6.0
	github.com/fluxcd/source-controller v1.7.0
)
