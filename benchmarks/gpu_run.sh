#!/usr/bin/env bash
# Everything that needs a GPU, in one visit to a machine that has one:
#
#   benchmarks/gpu_run.sh OUT [PART...]
#
# Parts, in this order by default; each has its own time limit in seconds, and one that fails or runs out of
# time does not stop the others:
#
#   build      installs the checkout with CUDA into the current Python (nothing is downloaded), for the GPU that
#              is there unless LDMLR_CUDA_ARCHS says otherwise; takes some minutes
#   smoke      a few rows by every tier, processes beside each other: one that hangs or faults spares the others
#   tests      the tests of the CUDA kernels that need a device, a process per tier, likewise
#   train      the trainer of stage 2: the weights of some steps beside the CPU's, a graph of steps beside single
#              launches, the time of a training
#   sanitize   compute-sanitizer (memcheck, then racecheck) on small cases of every tier and of the trainer
#   sample     ceilings, every tier at every size, latency
#   slabs      the kernels in layers with slabs of several sizes
#   baselines  eager PyTorch and torch.compile
#   disk       10 million rows to a store, with the share of time the GPU waits
#   stage2     training the diffusion model
#   stage1     training ResNet-32 (LDMLR_GPU_EPOCHS epochs, default 20; the time grows with them)
#   suite      the whole test suite; not among the defaults
#   encoders   trains and encodes what LDMLR_GPU_ENCODERS names, RECIPE=IMAGES..., side by side, and runs stages 2
#              and 3: gpu_encoders.sh says how, and what else can be set; not among the defaults
#
# OUT gets a log and, where the part measures, a JSON file for each part, and summary.json. A call ends within
# LDMLR_GPU_SECONDS (default 570): parts for which no time is left are left out and said to be, so that they
# can be asked for by name in another call. After each part OUT/results.tgz has all logs and JSON files so far.
# LDMLR_GPU_BACK gets a copy of that archive. PYTHON names the interpreter (default: python3).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -ge 1 ] || { sed -n '2,30p' "$0" >&2; exit 2; }
out=$(mkdir -p "$1" && cd "$1" && pwd) || exit 1
shift
python=${PYTHON:-python3}
all=(build smoke tests train sanitize sample slabs baselines disk stage2 stage1 suite encoders)
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=("${all[@]:0:11}")
for part in "${parts[@]}"; do
    [[ " ${all[*]} " == *" $part "* ]] || { echo "unknown part '$part'; choose from ${all[*]}" >&2; exit 2; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/path" && ln -s "$PWD/cli" "$work/path/ldmlr_cli"
export OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$work/path${PYTHONPATH:+:$PYTHONPATH}"
deadline=$(($(date +%s) + ${LDMLR_GPU_SECONDS:-570}))

declare -A limit=([build]=560 [smoke]=70 [tests]=260 [train]=90 [sanitize]=300 [sample]=120 [slabs]=75 [baselines]=150 [disk]=60
                  [stage2]=45 [stage1]=90 [suite]=560 [encoders]=560)

ldmlr() { "$python" -c 'from ldmlr_cli.main import main; main()' "$@"; }

tiers="resident streamed layered warpgroup bulk"

build() {
    local arch
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -n 1 | tr -d '. ')
    # The kernels for sm_90 use instructions that only sm_90a has.
    [ -z "$arch" ] || export LDMLR_CUDA_ARCHS=${LDMLR_CUDA_ARCHS:-${arch/#90/90a}}
    # Where pip cannot install, building in place is enough: PYTHONPATH names the checkout.
    LDMLR_CUDA=1 "$python" -m pip install --no-build-isolation --no-deps -e . ||
        LDMLR_CUDA=1 "$python" setup.py egg_info build_ext --inplace || return 1
    ldmlr info
}
# Correctness needs no quiet GPU: the tiers run beside each other, and what each prints goes to a log of its own.
beside() {
    local name=$1
    shift
    "$@" > "$out/$part-$name.log" 2>&1 &
    jobs_of_part+=("$name:$!")
}
all_right() {
    local failed=0 job name status
    for job in "${jobs_of_part[@]}"; do
        name=${job%:*}
        wait "${job#*:}" && status=0 || status=$?
        echo "== $name: $([ $status = 0 ] && echo ok || echo "failed ($status)")"
        tail -n "$([ $status = 0 ] && echo 2 || echo 12)" "$out/$part-$name.log"
        [ $status = 0 ] || failed=1
    done
    return $failed
}
smoke() {
    for tier in $tiers; do
        LDMLR_CUDA_TIER=$tier beside "$tier" timeout --kill-after=5 60 "$python" benchmarks/gpu_small.py
    done
    beside train timeout --kill-after=5 60 "$python" benchmarks/gpu_small.py train
    all_right
}
tests() {
    # Without a device, or with a build that has no kernels for it, every test would be skipped: no success.
    "$python" -c 'import sys, torch; from ldmlr import cuda_device as d; sys.exit(d.unavailable(torch.device("cuda")))' ||
        return 1
    for tier in $tiers; do
        # A warning of a library newer than those the suite is run with says nothing about a kernel.
        LDMLR_CUDA_TIER=$tier beside "$tier" timeout --kill-after=5 200 \
            "$python" -m pytest tests/test_cuda_device.py -v --tb=short -rs --durations=5 -W default -p no:cacheprovider
    done
    for name in cuda_train_device graphed; do
        beside "$name" timeout --kill-after=5 200 \
            "$python" -m pytest "tests/test_$name.py" -v --tb=short -W default -p no:cacheprovider
    done
    all_right
}
sanitize() {
    local tool
    # Without torch's pool each tensor is an allocation of its own, whose end memcheck sees.
    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    for tool in memcheck racecheck; do
        for tier in $tiers; do
            LDMLR_CUDA_TIER=$tier beside "$tool-$tier" timeout --kill-after=5 240 compute-sanitizer --tool "$tool" \
                --report-api-errors no --error-exitcode 9 "$python" benchmarks/gpu_small.py
        done
        beside "$tool-train" timeout --kill-after=5 240 compute-sanitizer --tool "$tool" --report-api-errors no \
            --error-exitcode 9 "$python" benchmarks/gpu_small.py train
    done
    all_right
}
measure() { "$python" benchmarks/gpu.py "$1" --out "$out/gpu-$1.json"; }
train() { measure train; }
sample() { measure sample; }
slabs() { measure slabs; }
baselines() { measure baselines; }
disk() { TMPDIR=$work measure disk; }
stage2() {
    "$python" benchmarks/gpu.py features --out "$work/features.h5" &&
        ldmlr diffuse "$work/features.h5" --out "$work/model.safetensors" --device cuda &&
        cp "$work/result.json" "$out/gpu-stage2.json"
}
stage1() {
    "$python" benchmarks/gpu.py images --out "$work/images.h5" &&
        ldmlr baseline "$work/images.h5" --preset cifar-ce-mixup --epochs "${LDMLR_GPU_EPOCHS:-20}" \
            --device cuda --out "$work/baseline" &&
        cp "$work/baseline/result.json" "$out/gpu-stage1.json" &&
        cp "$work/baseline/train.jsonl" "$out/gpu-stage1.train.jsonl"
}
suite() { "$python" -m pytest -q; }
encoders() {
    local -a named
    read -ra named <<< "${LDMLR_GPU_ENCODERS:?names recipes and images, such as presets/cifar10-lt-resnet32x4.toml=c10.h5}"
    benchmarks/gpu_encoders.sh "$out" "${named[@]}"
}

nvidia-smi > "$out/gpu.txt" 2>&1 || echo "nvidia-smi is not there" > "$out/gpu.txt"
commit=$(git rev-parse HEAD 2> /dev/null || echo unknown)

# What is known so far, as one document and as one archive.
save() {
    {
        printf '{"commit": "%s", "parts": [\n' "$commit"
        (IFS=,; printf '%s' "${lines[*]}" | sed 's/},{/},\n{/g')
        printf '\n]}\n'
    } > "$out/summary.json"
    (cd "$out" && find . -maxdepth 2 \( -name '*.json' -o -name '*.jsonl' -o -name '*.log' -o -name '*.txt' \) -print0 |
        tar --null -czf results.tgz -T -)
    [ -z "${LDMLR_GPU_BACK:-}" ] || { mkdir -p "$LDMLR_GPU_BACK" && cp "$out/results.tgz" "$LDMLR_GPU_BACK/"; }
}

lines=()
for part in "${parts[@]}"; do
    began=$(date +%s.%N)
    # A part is a child of its own, so that timeout can end it and all it started.
    export -f ldmlr measure build beside all_right smoke tests train sanitize sample slabs baselines disk stage2 stage1 suite \
        encoders
    export out work python tiers part
    left=$((deadline - $(date +%s) - 10))
    if [ "$left" -lt 10 ]; then
        printf '%-10s no time left\n' "$part"
        lines+=("{\"part\": \"$part\", \"state\": \"no time left\", \"seconds\": 0}")
        save
        continue
    fi
    seconds=$((left < limit[$part] ? left : limit[$part]))
    timeout --kill-after=5 "$seconds" bash -c "set -o pipefail; jobs_of_part=(); $part" > "$out/$part.log" 2>&1
    status=$?
    took=$(echo "$(date +%s.%N) $began" | awk '{ printf "%.1f", $1 - $2 }')
    state=$([ $status = 0 ] && echo ok || { [ $status = 124 ] && echo "out of time" || echo "failed ($status)"; })
    printf '%-10s %-12s %7s s\n' "$part" "$state" "$took"
    [ "$status" = 0 ] || tail -n 15 "$out/$part.log" | sed 's/^/    /'
    lines+=("{\"part\": \"$part\", \"state\": \"$state\", \"seconds\": $took}")
    save
done
