#!/usr/bin/env bash
# Gate the long run on a short one, on a cluster with Slurm.
#
#   examples/slurm_gate.sh [ENV] [LOG_FOLDER]        both have defaults: LiteDriving-v0, logs
#
# Flags for both trainings go into FLAGS, except --hyperparams, which the script sets itself. SHORT_TIME is the time
# limit of the short run. In CARLA, both trainings must be able to reach the server:
#
#   FLAGS="--env-kwargs host:carla-node port:2010" SHORT_TIME=4:00:00 examples/slurm_gate.sh CarlaDriving-v0
#
# Three jobs: a short training, its verdict, and the long training. The long one waits for the verdict with afterok, so it
# starts on exit code 0 (GO) alone; on NO-GO, INSUFFICIENT or an unreadable run Slurm cancels it, and the report says why.
# Each submission has a folder of its own in LOG_FOLDER, so neither the verdict nor the long job sees earlier runs.
set -euo pipefail

env=${1:-LiteDriving-v0}
logs=${2:-logs}/$(date +%Y%m%d-%H%M%S)-$$
short_steps=${SHORT_STEPS:-5000}
long_steps=${LONG_STEPS:-100000} # also the size of the replay buffer, which then holds all steps
flags=${FLAGS:-}

# The settings of CarlaDriving-v0 in zoo_configs are for 100,000 steps. With them, a short run would make few updates
# and only one evaluation. So the updates of this short run begin after a fifth of its steps, and it has five
# evaluations. For LiteDriving-v0 and 5,000 steps, these are the values of zoo_configs.
fifth=$((short_steps / 5))
short_flags="--hyperparams learning_starts:$fifth --eval-freq $fifth"

short=$(sbatch --parsable --job-name=short --time="${SHORT_TIME:-1:00:00}" --cpus-per-task=2 --wrap \
  "visual-td3 train --algo visual_td3 --env $env --n-timesteps $short_steps --seed 0 --log-folder $logs/short \
    $short_flags $flags")

verdict=$(sbatch --parsable --job-name=verdict --time=0:10:00 --dependency="afterany:$short" --wrap \
  "visual-td3 report $logs/short --require-evidence full --output $logs/verdict")

# Sixty seconds before the time limit Slurm sends SIGUSR1 to the shell, which hands it on; at a preemption Slurm sends
# SIGTERM to all processes. The training then takes a snapshot and ends with exit code 75, and the job is queued again. The
# next time it goes on from the newest snapshot, or begins again where it was killed before its first.
long=$(sbatch --parsable --job-name=long --time=3-00:00:00 --cpus-per-task=4 --requeue --signal=B:USR1@60 \
  --dependency="afterok:$verdict" --kill-on-invalid-dep=yes --wrap \
  "train() {
     for run in $logs/long/visual_td3/${env}_*/; do
       if test -e \"\$run\"/experiment.json || test -d \"\$run\"/snapshots; then
         exec visual-td3 resume \"\$run\"
       fi
     done
     exec visual-td3 train --algo visual_td3 --env $env --hyperparams buffer_size:$long_steps \
       --n-timesteps $long_steps --seed 0 --log-folder $logs/long $flags
   }
   train & pid=\$!
   trap 'kill -USR1 \$pid' USR1
   trap : TERM
   wait \$pid
   code=\$?
   while kill -0 \$pid 2>/dev/null; do wait \$pid; code=\$?; done
   if test \$code = 75; then scontrol requeue \$SLURM_JOB_ID; fi
   exit \$code")

echo "short $short, verdict $verdict, long $long"
echo "while they run: visual-td3 report $logs/short --watch"
