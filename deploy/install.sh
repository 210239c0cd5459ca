#!/bin/sh
# Installs what a node of a cluster needs, GPU or not: requirements/gpu.in, at the versions that
# requirements/cpu.txt pins, since a run refuses nodes whose versions differ.
set -eu
cd "$(dirname "$0")/../requirements"
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
# vLLM's CUDA build wants another version of this one than its CPU build.
grep -v '^apache-tvm-ffi==' cpu.txt >"$constraints"
python -m pip install --quiet --requirement gpu.in --constraint "$constraints"
