#!/usr/bin/env bash
# Compiles every CUDA source for every target and prints registers, shared memory and spills.
# Needs nvcc, no GPU: what this passes is compiled, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for source in *.cu; do
    for target in 80 90a; do
        echo "$source sm_$target"
        # -fmad=false: the compiler must not fuse a product and a sum that were written apart.
        nvcc -std=c++17 -O3 -fmad=false -gencode "arch=compute_$target,code=sm_$target" \
            -Xptxas -v -Werror all-warnings -c "$source" -o "$out/$source.$target.o" 2>&1 |
            grep -E 'error|warning|registers|spill' || true
        [ -s "$out/$source.$target.o" ] || { echo "$source: does not compile for sm_$target" >&2; exit 1; }
    done
done
