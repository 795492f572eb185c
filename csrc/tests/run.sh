#!/usr/bin/env bash
# Builds and runs the sampler, the trainer and softmax regression without Python, plain, under a sanitizer (that
# of threads also has the CUDA trainer, on a thread of the host for each of its own),
# for Arm on an emulated processor (g++-aarch64-linux-gnu and qemu-user), or with calls that libFuzzer chooses
# under the sanitizers of addresses and of undefined behaviour (clang; by default for a minute, and the portable
# kernels alone, as all of them compile for half an hour):
#
#   csrc/tests/run.sh [address|undefined|thread|aarch64]
#   csrc/tests/run.sh fuzz [SECONDS [all]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

flags=(-std=c++17 -O1 -g -ffp-contract=off -fno-math-errno -pthread -Wall -Wextra -Wno-uninitialized)
compiler=${CXX:-c++}
machine=$(uname -m)
run=()
case "${1:-}" in
    '') ;;
    aarch64)
        machine=aarch64
        if [ "$(uname -m)" != aarch64 ]; then compiler=aarch64-linux-gnu-g++ run=(qemu-aarch64); flags+=(-static); fi
        ;;
    address | undefined | thread) flags+=("-fsanitize=$1" -fno-sanitize-recover=all -fno-omit-frame-pointer) ;;
    fuzz)
        compiler=${CXX:-clang++}
        flags+=(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
        ;;
    *) echo "unknown sanitizer '$1'; choose address, undefined, thread, aarch64 or fuzz" >&2; exit 2 ;;
esac

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
objects=()
compile() { # source flags...
    local object="$folder/$(basename "$1" .cpp).o"
    "$compiler" "${flags[@]}" "${@:2}" -c "$1" -o "$object"
    objects+=("$object")
}
shared=(dispatch pack parallel sample softmax train_memory training)
for name in {denoise,train,softmax}_baseline "${shared[@]}"; do compile "csrc/cpu/$name.cpp"; done
if [ "${1:-}" = fuzz ] && [ "${3:-}" != all ]; then
    if [ "$machine" = x86_64 ]; then compile csrc/tests/portable.cpp; fi
elif [ "$machine" = x86_64 ]; then
    avx2=(-mavx2 -mfma -mf16c)
    avx512=("${avx2[@]}" -mavx512f -mavx512bw -mavx512dq -mavx512vl)
    bf16=("${avx512[@]}" -mavx512vnni -mavx512bf16)
    for kind in denoise train softmax; do
        compile "csrc/cpu/${kind}_avx2.cpp" "${avx2[@]}"
        compile "csrc/cpu/${kind}_avx512.cpp" "${avx512[@]}"
        compile "csrc/cpu/${kind}_avx512bf16.cpp" "${bf16[@]}"
    done
    compile csrc/cpu/denoise_avx512vnni.cpp "${avx512[@]}" -mavx512vnni
    compile csrc/cpu/denoise_amx.cpp "${bf16[@]}" -mamx-tile -mamx-bf16 -mamx-int8
fi
if [ "${1:-}" = fuzz ]; then
    compile csrc/tests/fuzz.cpp
    "$compiler" "${flags[@]}" -fsanitize=fuzzer "${objects[@]}" -o "$folder/fuzz"
    "$folder/fuzz" -max_total_time="${2:-60}" -len_control=0 -max_len=600 -timeout=60 -print_final_stats=1 \
        -artifact_prefix="${FUZZ_FOUND:-$PWD/}"
    exit
fi
kernels=("${objects[@]}")
for driver in sampler trainer heads; do
    objects=("${kernels[@]}")
    compile "csrc/tests/$driver.cpp"
    "$compiler" "${flags[@]}" "${objects[@]}" -o "$folder/$driver"
    "${run[@]}" "$folder/$driver"
done
if [ "${1:-}" = thread ]; then
    objects=("${kernels[@]}")
    compile csrc/tests/device_trainer.cpp -DLDMLR_EMULATE -DLDMLR_EMULATE_BY_THREADS
    "$compiler" "${flags[@]}" "${objects[@]}" -o "$folder/device_trainer"
    "$folder/device_trainer"
fi
