//go:build tools

// Package crds pins what the kinds of the Prometheus operator are made from: its types, and the generator that its own are made with.
package crds

import (
	_ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	_ "sigs.k8s.io/controller-tools/cmd/controller-gen"
)
