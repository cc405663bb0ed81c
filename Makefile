# moss: build, show, test, measure. Nothing is needed but Go, make and what every Debian has.
SHELL   := /bin/bash
GO      ?= go
PREFIX  ?= /usr/local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)

# Static, without paths and symbols of the machine that built it. The VCS stamp is left out: git refuses to look at a
# clone that belongs to somebody else, and the build would fail for it.
BUILD = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false
SLIM  = -ldflags '-s -w'

# A user whose home cannot be written keeps Go's cache in the checkout.
ifeq ($(shell d=$$($(GO) env GOCACHE) && mkdir -p "$$d" 2>/dev/null && test -w "$$d" && echo yes),)
export GOCACHE := $(CURDIR)/bin/go-build
endif

HELPERS = cmd/moss/helpers/moss-monitor cmd/moss/helpers/moss-init cmd/moss/helpers/moss-net

.DEFAULT_GOAL := build
.PHONY: help build build-arm64 demo test bench lint install clean $(HELPERS)

help: ## Print this list
	@awk -F ': .*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: $(HELPERS) ## Build bin/moss, one static binary with its slim helpers in it (the default)
	$(BUILD) -tags embedhelpers -ldflags '-s -w -X main.version=$(VERSION)' -o bin/moss.new ./cmd/moss
	@mv -f bin/moss.new bin/moss

# The helpers are what is executed on the way into a container; the binary embeds them, so they come first.
$(HELPERS):
	$(BUILD) $(SLIM) -o $@ ./cmd/$(@F)

build-arm64: ## Build bin/moss-arm64, for another machine
	@set -e; d=$$(mktemp -d); trap 'rm -rf "$$d"' EXIT; \
	cp -r cmd fuseoverlay image lifecycle netns userns go.mod go.sum "$$d"; cd "$$d"; export GOARCH=arm64; \
	for h in moss-monitor moss-init moss-net; do $(BUILD) $(SLIM) -o cmd/moss/helpers/$$h ./cmd/$$h; done; \
	$(BUILD) -tags embedhelpers -ldflags '-s -w -X main.version=$(VERSION)' -o "$(CURDIR)/bin/moss-arm64" ./cmd/moss
	@echo bin/moss-arm64

demo: build ## Build, and run the image that the binary carries: it tells what a container is, from inside
	@if (exec 3<>/dev/net/tun) 2>/dev/null; then net=; else \
	  net='--network none'; echo "/dev/net/tun cannot be opened here: the demo runs without a network"; fi; \
	set -x; bin/moss run --rm $$net builtin:hello

test: ## Run all tests: vet, gofmt, unit, race, fuzz seeds, and the stories of tests/ with the built binary
	@tests/run.sh

bench: build ## Measure moss beside its peers, as far as they are installed
	@bench/run.sh

lint: ## Look for what gofmt and vet find
	@out=$$(gofmt -l bench cmd fuseoverlay image lifecycle netns tests userns); test -z "$$out" || { echo "not gofmt-ed:"; echo "$$out"; exit 1; }
	$(GO) vet ./...

install: build ## Install bin/moss to $(PREFIX)/bin
	install -D -m 755 bin/moss $(DESTDIR)$(PREFIX)/bin/moss

clean: ## Remove what was built
	chmod -R u+w bin/go-build 2>/dev/null || true
	rm -rf bin $(HELPERS)
