#!/usr/bin/env bash
# Runs the image as a challenge does, on scans of your own: test_run.sh INPUT OUTPUT [TAG]
# INPUT is mounted as /input and OUTPUT, which must be writable for everybody, as /output.
set -euo pipefail
input="$(realpath "$1")"
output="$(realpath "$2")"
gpus=()
if command -v nvidia-smi > /dev/null; then
    gpus=(--gpus all)
fi
docker run --rm \
    --platform=linux/amd64 \
    --network none \
    --cap-drop ALL \
    --security-opt no-new-privileges \
    --shm-size 128m \
    --pids-limit 256 \
    "${gpus[@]}" \
    --volume "$input":/input:ro \
    --volume "$output":/output \
    "${3:-@name@}"
