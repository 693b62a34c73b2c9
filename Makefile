# Serval. `make help` lists what there is; `make demo` and `make test` need Go and nothing else.

GO        ?= go
TOOLS     ?= $(HOME)/.cache/serval-tools
FUZZTIME  ?= 60s
CI        ?= false

STATICCHECK_VERSION := v0.8.2
STATICCHECK         := $(TOOLS)/staticcheck-$(STATICCHECK_VERSION)/staticcheck
GOVULNCHECK_VERSION := v1.1.4
GOVULNCHECK         := $(TOOLS)/govulncheck-$(GOVULNCHECK_VERSION)/govulncheck

# The race detector needs a C compiler.
HAVE_CC := $(shell command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 && echo yes)
RACE    := $(if $(HAVE_CC),-race,)

.DEFAULT_GOAL := help
.PHONY: help demo demo-check test bench bench-ingest fuzz build check tools clean

help: ## List what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

test: ## Run every test; what is not at hand is skipped by name (with CI=true it fails)
ifeq ($(RACE),)
	@if [ "$(CI)" = true ]; then echo "a C compiler is needed: Debian package gcc"; exit 1; fi
	@echo "No C compiler: tests run without the race detector."
endif
	$(GO) test $(RACE) $(if $(filter true,$(CI)),-count=1,) -timeout 20m ./...

bench-ingest: ## Measure the reading of accounts (docs/performance.md), some three minutes
	$(GO) test -v -count=1 -run '^TestIngest$$' -timeout 20m ./internal/awsiam -args -ingest

bench: ## Run the benchmarks, as ratios measured side by side
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./...

fuzz: ## Fuzz every parser of foreign text for FUZZTIME each
	@grep -rlE '^func Fuzz' --include='*_test.go' internal cmd | xargs -n1 dirname | sort -u | while read -r dir; do \
		for f in $$(grep -hoE '^func (Fuzz[A-Za-z0-9_]+)' "$$dir"/*_test.go | awk '{print $$2}'); do \
			echo "$$dir $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) "./$$dir" || exit 1; \
		done; done

build: ## Build the programs into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/ ./cmd/serval-bridge ./cmd/serval-worker

check: tools ## gofmt, go vet, staticcheck, module checks; govulncheck where its database can be reached
	@bad=$$(gofmt -l api cmd internal); if [ -n "$$bad" ]; then echo "not gofmt'd:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) mod verify
	@$(GO) mod tidy -diff
	@if grep -q '^replace' go.mod; then echo "go.mod has a replace line"; exit 1; fi
	@out=$$($(GOVULNCHECK) ./... 2>&1); code=$$?; \
	if [ $$code -eq 0 ]; then echo "govulncheck: nothing found"; \
	elif echo "$$out" | grep -qE 'fetching vulnerabilities|dial tcp|no such host|proxyconnect|connection refused|403|i/o timeout'; then echo "govulncheck: its database cannot be reached from here; not checked"; \
	else echo "$$out"; exit $$code; fi

tools: $(STATICCHECK) $(GOVULNCHECK)

$(STATICCHECK):
	GOBIN=$(dir $@) $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

$(GOVULNCHECK):
	GOBIN=$(dir $@) $(GO) install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)

clean: ## Remove what was built
	rm -rf bin dist
