#!/bin/bash
# Pseudo-features in N shards, one task of an array per shard; the last one to finish writes the manifest.
#
#   sbatch --array=0-63 --cpus-per-task=8 examples/shards.sh model.safetensors pseudo.h5 64
#   seq 0 63 | SEED=0 parallel SLURM_ARRAY_TASK_ID={} bash examples/shards.sh model.safetensors pseudo.h5 64
#
# A task that was killed is started again with the same line: --resume takes up what it had drawn.
set -euo pipefail
model=$1 out=$2 shards=$3
${LDMLR:-ldmlr} generate "$model" --seed "${SEED:-0}" --shard "$SLURM_ARRAY_TASK_ID/$shards" \
    --threads "${SLURM_CPUS_PER_TASK:-1}" --resume --out "$out"
