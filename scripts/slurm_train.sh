#!/usr/bin/env bash
# Train on a Slurm cluster, on several nodes with several GPUs each:
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 scripts/slurm_train.sh experiment=imagenet data.root=/data/ILSVRC
#
# One task for each GPU. Two minutes before its time is up the job gets SIGTERM, saves, and is queued again; it then
# resumes from the newest whole checkpoint of its folder, runs/slurm_JOB or RUN, which all nodes must share. Activate
# the environment before sbatch, which passes it to the job.
#
#SBATCH --job-name=pdnla
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm_%j.log
# Without B:, the signal goes to the tasks and not to this script.
#SBATCH --signal=TERM@120
set -uo pipefail

readonly PREEMPTED=143 # exit status of a run that has saved and can be resumed
run=${RUN:-runs/slurm_$SLURM_JOB_ID}

resume=()
if compgen -G "$run/*.ckpt" > /dev/null; then
    resume=("ckpt_path=$run")
fi

srun pdnla-train trainer=ddp "trainer.num_nodes=$SLURM_NNODES" "trainer.devices=$SLURM_NTASKS_PER_NODE" \
    "hydra.run.dir=$run" "${resume[@]}" "$@"
status=$?

if [ "$status" -eq "$PREEMPTED" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
