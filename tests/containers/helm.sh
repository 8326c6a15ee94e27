#!/bin/sh
# Puts a pinned helm into .venv/bin where there is none, with the Go toolchain (about two minutes). Prints where helm is.
set -eu
version=v3.22.0
bin=$(cd "$(dirname "$0")/../.." && pwd)/.venv/bin

command -v helm && exit 0
if [ ! -x "$bin/helm" ]; then
    command -v go >/dev/null || { echo "neither helm nor go is on PATH" >&2; exit 1; }
    mkdir -p "$bin"
    # Outside of any module, and without cgo, so that no C compiler is needed.
    cd / && GOBIN=$bin CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' "helm.sh/helm/v3/cmd/helm@$version" >&2
fi
echo "$bin/helm"
