#!/usr/bin/env bash
# Runs train_ncp.py with the paper's settings, on a Ray cluster that starts and ends with it (openrlhf/cli/launch.py).
# train_7b.sh and train_3b.sh set the model and call this; arguments of theirs go to train_ncp.py
# after the paper's, so a later one wins.
#
#   DATA_DIR=/data/ncp NAME=try1 ./train_7b.sh --num_episodes 5
#   DRY_RUN=1 ./train_7b.sh               # prints the job's command, one argument a line, and starts nothing
#
# Variables (defaults in brackets):
#   MODEL, SAMPLES_PER_PROMPT   set by the script that calls this one
#   NAME                        names the run's folder, DATA_DIR/checkpoint/NAME, which gets all that it writes [ncp]
#   DATA_DIR                    holds rl_data/ and the runs' folders [the current folder]
#   NICE_MODEL_NAME             what compute_baseline_perplexity.py got as --nice_model_name [NAME]
#   BASELINE_PPL_PATH           its baseline map [DATA_DIR/prompt_to_datapoint_with_baseline_ppl_NICE_MODEL_NAME.pkl]
#   TRAIN_GPUS                  GPUs of policy and reference model, which share them [4]
#   NUM_ENGINES, ENGINE_GPUS    vLLM engines, and GPUs of each [2, 2]
#   LOG_FILE                    copy of the output [DATA_DIR/checkpoint/NAME/NAME.log]
#   NODE_IP                     address of Ray's head; another one than loopback lets other hosts join [127.0.0.1]
#   RAY_PORT, DASHBOARD_PORT    [any free ones]
#   RAY_AUTH_TOKEN_PATH         secret that clients of the cluster must show; made if missing [~/.ray/auth_token]
set -euo pipefail

fail() {
  echo "launch: $*" >&2
  exit 2
}

unset RAY_ADDRESS # the run has a cluster of its own
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${MODEL:?set MODEL, or run train_7b.sh or train_3b.sh}"
: "${SAMPLES_PER_PROMPT:?set SAMPLES_PER_PROMPT, or run train_7b.sh or train_3b.sh}"
NAME=${NAME:-ncp}
cd_to=${DATA_DIR:-$PWD}
DATA_DIR=$(cd "$cd_to" 2>/dev/null && pwd) || fail "DATA_DIR=$cd_to: no such folder"
BASELINE_PPL_PATH=${BASELINE_PPL_PATH:-$DATA_DIR/prompt_to_datapoint_with_baseline_ppl_${NICE_MODEL_NAME:-$NAME}.pkl}
TRAIN_GPUS=${TRAIN_GPUS:-4}
NUM_ENGINES=${NUM_ENGINES:-2}
ENGINE_GPUS=${ENGINE_GPUS:-2}
run=$DATA_DIR/checkpoint/$NAME
LOG_FILE=${LOG_FILE:-$run/$NAME.log}
NODE_IP=${NODE_IP:-127.0.0.1}
if [[ $DATA_DIR == *,* ]]; then
  fail "DATA_DIR=$DATA_DIR: a comma separates data sets in --prompt_data; use a folder without one"
fi

job=(
  python3 "$root/train_ncp.py"
  --pretrain "$MODEL"
  --prompt_data "json@$DATA_DIR/rl_data" --input_key prompt --apply_chat_template --max_samples 100000
  --baseline_ppl_path "$BASELINE_PPL_PATH"
  # placement
  --actor_num_nodes 1 --actor_num_gpus_per_node "$TRAIN_GPUS"
  --ref_num_nodes 1 --ref_num_gpus_per_node "$TRAIN_GPUS" --colocate_actor_ref
  --reward_num_nodes 0 --reward_num_gpus_per_node 0
  --vllm_num_engines "$NUM_ENGINES" --vllm_tensor_parallel_size "$ENGINE_GPUS"
  --vllm_gpu_memory_utilization 0.9 --enable_prefix_caching
  # memory and speed
  --zero_stage 3 --adam_offload --ref_reward_offload --bf16
  --gradient_checkpointing --flash_attn --torch_compile --use_liger_kernel
  # rollouts
  --rollout_batch_size 64 --micro_rollout_batch_size 1 --n_samples_per_prompt "$SAMPLES_PER_PROMPT"
  --prompt_max_len 12000 --generate_max_len 2048
  # optimization
  --advantage_estimator group_norm --use_kl_loss --kl_estimator k3 --init_kl_coef 1e-6
  --actor_learning_rate 5e-7 --train_batch_size 64 --micro_train_batch_size 1 --max_epochs 1 --num_episodes 20
  # packs hold what a trial finds room for; a micro-batch size that is given after this counts instead
  --pack_tokens auto
  # evaluation and checkpoints
  --eval_split validation --eval_steps 8 --save_steps 16 --load_checkpoint
  --save_path "$run" --ckpt_path "$run"
  "$@"
)
if [[ ${DRY_RUN:-0} == 1 ]]; then
  printf '%s\n' "${job[@]}"
  exit 0
fi

launch=(python3 -P -m openrlhf.cli.launch) # -P: ./openrlhf, the folder, must not stand in for the package
if ! python3 -P -c 'import importlib.util, openrlhf.cli; assert importlib.util.find_spec("ray")' 2>/dev/null; then
  fail "$(command -v python3 || echo "python3 (not found)") has not got openrlhf and Ray; activate the environment that" \
    "they are installed in (source .venv/bin/activate), or install requirements.txt and then openrlhf/"
fi
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} # Ray's workers import ray_utils.py
if [[ $NODE_IP == 127.* ]]; then # what this machine cannot run is refused before a cluster starts
  OPENRLHF_LOG_LEVEL=ERROR "${job[@]}" --check_only
fi
exec "${launch[@]}" --log "$LOG_FILE" --node_ip "$NODE_IP" ${RAY_PORT:+--port "$RAY_PORT"} \
  ${DASHBOARD_PORT:+--dashboard_port "$DASHBOARD_PORT"} -- "${job[@]}"
