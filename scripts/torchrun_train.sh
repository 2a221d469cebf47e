#!/usr/bin/env bash
# Train on several devices, and on several machines, by torchrun. Run it on each machine with the same arguments:
#
#   HEAD=node0 NODES=2 DEVICES=8 RUN=runs/large scripts/torchrun_train.sh experiment=imagenet data.root=/data/ILSVRC
#
# NODES    machines (1)
# DEVICES  devices of each machine, one process each (all its GPUs)
# HEAD     name and port of the first machine, reachable from all (localhost:29500)
# RUN      the run's folder, on a file system that all machines share; Hydra's default, which holds the time, would differ
#          between processes. The run is resumed if the folder holds a checkpoint.
set -euo pipefail

nodes=${NODES:-1}
devices=${DEVICES:-$(nvidia-smi --list-gpus | wc -l)}
run=${RUN:?set RUN to the folder of the run}
python=${PYTHON:-python}

resume=()
if compgen -G "$run/*.ckpt" > /dev/null; then
    resume=("ckpt_path=$run")
fi

exec "$python" -m torch.distributed.run \
    --nnodes "$nodes" --nproc-per-node "$devices" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost:29500}" --rdzv-id "$(basename "$run")" \
    -m pdnla.cli.train trainer=ddp "trainer.num_nodes=$nodes" "trainer.devices=$devices" \
    "hydra.run.dir=$run" "${resume[@]}" "$@"
