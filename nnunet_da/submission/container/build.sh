#!/usr/bin/env bash
# Builds the image: build.sh [TAG]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
docker build --platform=linux/amd64 --tag "${1:-@name@}" .
