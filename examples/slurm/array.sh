#!/usr/bin/env bash
# Captions a folder of pictures in a Slurm array: each task does its part, a last job joins them.
#
#   sbatch examples/slurm/array.sh PICTURES MODEL OUTPUT.jsonl
#
# A task that was killed or timed out goes on when the same line is submitted again. For other sizes:
# sbatch --array=0-31 …; the program finds its part by the array's variables.
#SBATCH --job-name=vlm-caption
#SBATCH --array=0-7
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
set -euo pipefail
pictures=$1 model=$2 output=$3
vlm=${VLM:-build/vlm}

# The first task submits the job that gathers, to run once the whole array is done.
if [ "$SLURM_ARRAY_TASK_ID" = "$SLURM_ARRAY_TASK_MIN" ] && command -v sbatch >/dev/null; then
  sbatch --dependency="afterany:$SLURM_ARRAY_JOB_ID" --job-name=vlm-gather --wrap "'$vlm' gather '$output'"
fi
# Exit code 3 means that some pictures couldn't be read; the task itself is done.
"$vlm" caption "$pictures" --model "$model" --output "$output" --threads "${SLURM_CPUS_PER_TASK:-1}" || [ $? = 3 ]
