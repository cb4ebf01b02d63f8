#!/bin/bash
# Training on several nodes, one torchrun on each:
#
#   sbatch --nodes=2 docs/slurm/train.sh --data DIR --out RESULTS --recipe NAME [options]
#
# Ranks that die are started again from the last checkpoint, up to three times; a job that is requeued goes on, too, and
# ends at once with status 0 if its run is complete.
# OUT has to lie on a file system that all nodes share, DIR on one, or behind a URL.
#SBATCH --job-name=shardfeed-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120

set -euo pipefail
# Or agents keep the address of a first node that is gone (pytorch/pytorch#135712; docs/cluster.md).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # which reads to the end, unlike head
exec srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" --max-restarts 3 \
    -m train "$@"
