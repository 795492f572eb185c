#!/usr/bin/env bash
# Compiles every CUDA source for every target and prints a line per kernel: registers, stack, spills.
# Needs nvcc, no GPU: what this passes is compiled, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
printf '%-7s %9s %6s %7s %s\n' target registers stack spilled kernel
for source in *.cu; do
    for target in 80 90a; do
        # -fmad=false: the compiler must not fuse a product and a sum that were written apart.
        nvcc -std=c++17 -O3 -fmad=false "-DLDMLR_CUDA_TARGETS=\"$target\"" \
            -gencode "arch=compute_$target,code=sm_$target" -Xptxas -v -Werror all-warnings \
            -c "$source" -o "$out/object.o" 2> "$out/log" || { cat "$out/log" >&2; exit 1; }
        c++filt < "$out/log" | awk -v target="sm_$target" '
            /Compiling entry function/ {
                kernel = $0
                sub(/.*entry function .(void )?/, "", kernel)
                sub(/. for .sm_.*/, "", kernel)
                gsub(/ldmlr::cuda::/, "", kernel)
                sub(/\(Product.*|\(Model.*|\(ldmlr.*|\(Rows.*/, "", kernel)
            }
            /stack frame/ { stack = $1; spilled = $5 }
            /Used .* registers/ {
                match($0, /Used [0-9]+/)
                printf "%-7s %9d %6d %7d %s\n", target, substr($0, RSTART + 5, RLENGTH - 5), stack, spilled, kernel
            }'
    done
done
