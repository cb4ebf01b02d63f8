#!/bin/bash
# After all slices of docs/slurm/preprocess.sh: compares every shard with its checksum and writes the manifest.
#SBATCH --job-name=shardfeed-finish
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=1G
#SBATCH --time=01:00:00

set -euo pipefail
exec python -m preprocess "$@" --finish --workers "${SLURM_CPUS_PER_TASK:-1}"
