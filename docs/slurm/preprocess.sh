#!/bin/bash
# One slice of a conversion for each task of an array. From the directory of the environment:
#
#   job=$(sbatch --parsable --array=0-7 docs/slurm/preprocess.sh 8 SOURCE OUT [options])
#   sbatch --dependency=afterok:$job docs/slurm/finish.sh SOURCE OUT [the same options]
#
# The first word is the number of slices. A task that failed or was killed is started again alone
# (sbatch --array=3 docs/slurm/preprocess.sh 8 SOURCE OUT) and keeps the shards that it had finished.
#SBATCH --job-name=shardfeed-preprocess
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=1G
#SBATCH --time=04:00:00
#SBATCH --requeue

set -euo pipefail
slices=$1
shift
# exec: signals of the scheduler reach python itself, which then removes what is half-written.
exec python -m preprocess "$@" --tasks "$SLURM_ARRAY_TASK_ID/$slices" --workers "${SLURM_CPUS_PER_TASK:-1}"
