#!/usr/bin/env bash
# Encoders in one visit to a GPU machine; a part of gpu_run.sh, which sets the time limit:
#
#   benchmarks/gpu_encoders.sh OUT RECIPE=IMAGES...
#
# RECIPE is a TOML file of presets/ or the name of a preset, IMAGES an image set, also as pack_images.py leaves
# it (.xz). All are trained side by side, each for as many epochs as fit into LDMLR_GPU_TRAIN_SECONDS (default 360)
# from now on, at most twice those of its recipe; LDMLR_GPU_ENCODER_EPOCHS sets their number instead. Each has a
# folder in OUT, where a training that was cut goes on in the next call, to the same number of epochs. Then each is
# encoded (with views; float16), and stages 2 and 3 follow with LDMLR_GPU_SEEDS seeds (default 5), if time is left.
#
# What is to come back lies in LDMLR_GPU_BACK, if that is set, in pieces of 15 MiB at most: every model, and with
# one encoder alone its feature store. Put together (cat NAME.model.* > model.safetensors), the rest can be done
# elsewhere: ldmlr run NAME.h5, ldmlr compare NAME.h5.
#
# CIFAR-10-LT and -100-LT with resnet32x4, in two calls of a machine to which 64 MiB travel at a time:
#
#   python benchmarks/pack_images.py pack cifar10-lt-if100-images.h5 build/c10.xz      # half as large; likewise c100.xz
#   LDMLR_GPU_ENCODERS=presets/cifar10-lt-resnet32x4.toml=build/c10.xz LDMLR_GPU_BACK=$OUT \
#       benchmarks/gpu_run.sh build/gpu encoders
#   LDMLR_GPU_ENCODERS=presets/cifar100-lt-resnet32x4.toml=build/c100.xz LDMLR_GPU_BACK=$OUT \
#       benchmarks/gpu_run.sh build/gpu encoders
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=$(mkdir -p "$1" && cd "$1" && pwd) || exit 1
shift
python=${PYTHON:-python3} on=(--device "${LDMLR_GPU_DEVICE:-cuda}") back=${LDMLR_GPU_BACK:-}
until=$(($(date +%s) + ${LDMLR_GPU_TRAIN_SECONDS:-360}))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ldmlr() { "$python" -c 'from ldmlr_cli.main import main; main()' "$@"; }

name_of() { basename "${1%%=*}" .toml; }

# Where the images of a job are, unpacked if need be.
images_of() {
    case $1 in
        *.xz) echo "$work/$(name_of "$1").h5" ;;
        *) echo "${1#*=}" ;;
    esac
}

train() {
    local recipe=${1%%=*} name folder images options
    name=$(name_of "$1") images=$(images_of "$1")
    folder=$out/$name
    mkdir -p "$folder"
    [ "$images" = "${1#*=}" ] || "$python" benchmarks/pack_images.py unpack "${1#*=}" "$images" || return 1
    options=(--preset "$recipe")
    [ "${recipe%.toml}" = "$recipe" ] || options=(--config "$recipe")
    if [ ! -e "$folder/model.safetensors" ]; then
        [ -s "$folder/epochs" ] || echo "${LDMLR_GPU_ENCODER_EPOCHS:-$("$python" benchmarks/fit_epochs.py "$images" \
            "$recipe" --until "$until" "${on[@]}")}" > "$folder/epochs"
        [ "$(< "$folder/epochs")" -gt 0 ] || { echo "no epoch fits"; rm "$folder/epochs"; return 1; }
        ldmlr baseline "$images" "${options[@]}" "${on[@]}" --epochs "$(< "$folder/epochs")" --resume \
            --out "$folder" || return 1
    fi
    [ -e "$folder/features.h5" ] ||
        ldmlr encode "$folder" "$images" "${on[@]}" --views 3 --view-kinds weak --view-kinds weak \
            --view-kinds strong --dtype float16 --out "$folder/features.h5"
}

pieces() { # FILE PREFIX
    [ -z "$back" ] || { mkdir -p "$back" && rm -f "$back/$2".* && split -b 15M -d "$1" "$back/$2."; }
}

failed=0 jobs_of=()
for job in "$@"; do
    train "$job" > "$out/encoders-$(name_of "$job").log" 2>&1 &
    jobs_of+=("$!")
done
for process in "${jobs_of[@]}"; do wait "$process" || failed=1; done
for job in "$@"; do
    name=$(name_of "$job") folder=$out/$(name_of "$job")
    echo "== $name: $(cat "$folder/epochs" 2> /dev/null || echo no) epochs"
    tail -n 6 "$out/encoders-$name.log"
    [ ! -e "$folder/model.safetensors" ] || pieces "$folder/model.safetensors" "$name.model"
    [ $# -gt 1 ] || [ ! -e "$folder/features.h5" ] || pieces "$folder/features.h5" "$name.features"
done
for job in "$@"; do
    folder=$out/$(name_of "$job")
    [ -e "$folder/features.h5" ] || continue
    [ -e "$folder/run.json" ] ||
        { ldmlr run "$folder/features.h5" "${on[@]}" --seeds "${LDMLR_GPU_SEEDS:-5}" --out "$folder/run" &&
            cp "$folder/run/result.json" "$folder/run.json"; } || failed=1
done
exit $failed
