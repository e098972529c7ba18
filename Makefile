# The image to build, push and deploy.
IMAGE_REPO_OWNER ?= ghcr.io/artilleryio
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
IMG ?= $(IMAGE_REPO_OWNER)/artillery-operator-alpha:v$(VERSION)
# The Rust target of the operator in the image. It must be installed (rustup target add ...). A foreign target also needs a C
# compiler, such as that of the Debian package gcc-aarch64-linux-gnu.
TARGET ?= $(shell uname -m)-unknown-linux-gnu
LINKER = $(if $(filter $(shell uname -m)-%,$(TARGET)),,-C linker=$(firstword $(subst -, ,$(TARGET)))-linux-gnu-gcc)
# The first tool that works. docker without its daemon does not.
CONTAINER_TOOL ?= $(firstword $(foreach tool,docker podman buildah,$(shell $(tool) info >/dev/null 2>&1 && echo $(tool))))

CLUSTER := hack/local-cluster/cluster.sh
# The model check explores hundreds of thousands of states, so it is optimized.
OPTIMIZED := profile.test.package.artillery-operator.opt-level=2
# The Cargo profile of the operator in the image: release, or quick, which is not optimized.
PROFILE ?= release
WORKER_ARCHIVE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/artillery-operator/worker-image.tar
BROWSER_ARCHIVE := $(WORKER_ARCHIVE:.tar=-browser.tar)
PROGRAM := target/$(TARGET)/$(PROFILE)/artillery-operator
# Where install-cli puts the kubectl plugin. kubectl finds it there if the folder is in PATH.
BINDIR ?= $(if $(shell [ -w /usr/local/bin ] && echo yes),/usr/local/bin,$(HOME)/.local/bin)

export IMG
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: all help demo test unit integration e2e worker test-matrix test-faults model-check fuzz bench bench-node build install-cli manifests generate fmt lint run install uninstall deploy undeploy docker-build \
	docker-push release test-release verify-release clean down

all: build

help: ## Show this help.
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Start here

demo: ## Create a cluster on this machine, install the operator, and run the basic example to its end.
	hack/demo.sh

test: ## Run all tests: unit, model check, integration, faults, worker image, end to end.
	hack/test.sh

worker: worker/node_modules/.package-lock.json ## Tests of the worker's JavaScript: make worker, or one file: make worker NAME=divide.
	NAME=$(NAME) npm test --prefix worker

##@ Tests, by layer

unit: ## Unit tests without the model check: no root, no cluster, seconds after a change.
	cargo test --quiet --workspace --lib --bins --test faults-unit -- --skip model_check

integration: ## The operator against a real API server: make integration, or make integration TEST=part_of_a_name.
	$(CLUSTER) control-plane up tests
	cargo build -p kubectl-artillery
	CLUSTER_NAME=tests cargo test --test integration $(TEST)

e2e: ## The operator on a real node with real Artillery: make e2e, or make e2e TEST=part_of_a_name. Needs root.
	$(CLUSTER) up tests
	hack/worker-image/build.sh $(WORKER_ARCHIVE)
	$(CLUSTER) push oci-archive:$(WORKER_ARCHIVE) artilleryio/artillery:latest
	hack/worker-image/build.sh --browser $(BROWSER_ARCHIVE)
	$(CLUSTER) push oci-archive:$(BROWSER_ARCHIVE) artilleryio/artillery:browser
	cargo build -p kubectl-artillery
	OPERATOR_IMAGE=$$(hack/operator-image.sh --push) TEKTON=$$(hack/tekton.sh) $(CLUSTER) exec --name tests cargo test --test e2e $(TEST)

test-matrix: ## Integration tests on all supported versions of Kubernetes: make test-matrix, or make test-matrix VERSIONS="1.30.14 1.36.3".
	hack/test-matrix.sh $(VERSIONS)

test-faults: ## Inject every fault into every request, one in each run: make test-faults, or make test-faults FAULTS=--subset.
	hack/test-faults.sh $(FAULTS)

model-check: ## Check the operator's decisions in some millions of states of a small cluster.
	cargo test --config $(OPTIMIZED) --lib -- --ignored --nocapture model_check

fuzz: ## Analyze mutated scripts, results and thresholds: make fuzz SECONDS=3600.
	cargo run --release --quiet -p loadtest-fuzz -- $(or $(SECONDS),60) $(SEED)

bench: ## Measure speed and cost with simulated nodes: make bench, or make bench BENCH="100 2" or BENCH="--case rest 1000".
	hack/bench.sh $(BENCH)

bench-node: ## Measure a LoadTest and a bare Job on a real node.
	hack/bench-node.sh

down: ## Remove the cluster that make demo left running.
	$(CLUSTER) down

##@ Development

build: ## Build the operator for this machine.
	cargo build --release

manifests: ## Generate the CRD and the field reference from the Rust types, and files of the Helm chart from config/.
	hack/generate.sh

install-cli: ## Install the plugin kubectl artillery into BINDIR.
	cargo build --release -p kubectl-artillery
	install -D -m 755 target/release/kubectl-artillery $(BINDIR)/kubectl-artillery
	@echo "installed $(BINDIR)/kubectl-artillery: try kubectl artillery --help"

fmt: ## Format the code.
	cargo fmt

lint: ## Check format, code, generated files, layers, shell scripts, and the licenses of all dependencies.
	hack/lint.sh

run: ## Run the operator on this machine, against the cluster of the current kubeconfig.
	cargo run --release --bin artillery-operator

clean: ## Remove all build output.
	cargo clean

##@ Installation, into the cluster of the current kubeconfig

install: ## Install only the CRD.
	kubectl apply -k config/crd

uninstall: ## Remove the CRD, and with it all load tests.
	kubectl delete --ignore-not-found -k config/crd

deploy: ## Install the operator, image IMG.
	./operator-deploy.sh

install.yaml: FORCE ## Write install.yaml: the operator, image IMG, as one file.
	hack/install-yaml.sh >$@.new
	mv $@.new $@

undeploy: ## Remove the operator, the CRD and all load tests.
	./operator-undeploy.sh

worker/node_modules/.package-lock.json: worker/package-lock.json
	npm ci --prefix worker --ignore-scripts --no-audit --no-fund
	touch $@

##@ Image

# Without --remap-path-prefix, the programs would contain the path of the folder of dependencies, and differ between machines.
$(PROGRAM): FORCE
	RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs $(LINKER) \
		--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo" \
		cargo build --profile $(PROFILE) --target $(TARGET) -p artillery-operator -p kubectl-artillery --bins

docker-build: $(PROGRAM) ## Build the operator's image IMG with docker, podman or buildah.
	@[ -n "$(CONTAINER_TOOL)" ] || { echo "docker-build: docker, podman or buildah is required" >&2; exit 1; }
	$(CONTAINER_TOOL) build --platform linux/$(if $(filter aarch64-%,$(TARGET)),arm64,amd64) -t $(IMG) -f Dockerfile target/$(TARGET)/$(PROFILE)

docker-push: ## Push the image IMG.
	$(CONTAINER_TOOL) push $(IMG)

##@ Release

release: ## Build everything that a release publishes, in dist/VERSION: make release VERSION=0.1.0.
	hack/release.sh $(VERSION)

test-release: ## Test the files in dist/VERSION, also the programs for arm64.
	hack/test-release.sh $(VERSION)

verify-release: ## Build the release again in another folder, and compare the bytes with dist/VERSION.
	hack/release.sh --verify $(VERSION)

.PHONY: FORCE
FORCE:
