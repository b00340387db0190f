#!/usr/bin/env bash
# Starts a Ray cluster on this machine, runs train_ncp.py on it with the paper's settings, and stops the cluster.
# train_7b.sh and train_3b.sh set the model and call this; arguments of theirs go to train_ncp.py
# after the paper's, so a later one wins.
#
#   DATA_DIR=/data/ncp NAME=try1 ./train_7b.sh --num_episodes 5
#   DRY_RUN=1 ./train_7b.sh               # prints the job's command, one argument a line, and starts nothing
#
# Variables (defaults in brackets):
#   MODEL, SAMPLES_PER_PROMPT   set by the script that calls this one
#   NAME                        names the checkpoint folder and the log file [ncp]
#   DATA_DIR                    holds rl_data/ and gets the checkpoints and the model [the current folder]
#   NICE_MODEL_NAME             what compute_baseline_perplexity.py got as --nice_model_name [NAME]
#   BASELINE_PPL_PATH           its baseline map [DATA_DIR/prompt_to_datapoint_with_baseline_ppl_NICE_MODEL_NAME.pkl]
#   TRAIN_GPUS                  GPUs of policy and reference model, which share them [4]
#   NUM_ENGINES, ENGINE_GPUS    vLLM engines, and GPUs of each [2, 2]
#   LOG_FILE                    copy of the output [DATA_DIR/NAME.log]
#   NODE_IP                     address of Ray's head; another one than loopback lets other hosts join [127.0.0.1]
#   RAY_PORT, DASHBOARD_PORT    [6379, 8265]
#   RAY_AUTH_TOKEN_PATH         secret that clients of the cluster must show; made if missing [~/.ray/auth_token]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${MODEL:?set MODEL, or run train_7b.sh or train_3b.sh}"
: "${SAMPLES_PER_PROMPT:?set SAMPLES_PER_PROMPT, or run train_7b.sh or train_3b.sh}"
NAME=${NAME:-ncp}
DATA_DIR=$(cd "${DATA_DIR:-$PWD}" && pwd)
BASELINE_PPL_PATH=${BASELINE_PPL_PATH:-$DATA_DIR/prompt_to_datapoint_with_baseline_ppl_${NICE_MODEL_NAME:-$NAME}.pkl}
TRAIN_GPUS=${TRAIN_GPUS:-4}
NUM_ENGINES=${NUM_ENGINES:-2}
ENGINE_GPUS=${ENGINE_GPUS:-2}
LOG_FILE=${LOG_FILE:-$DATA_DIR/$NAME.log}
NODE_IP=${NODE_IP:-127.0.0.1}
RAY_PORT=${RAY_PORT:-6379}
DASHBOARD_PORT=${DASHBOARD_PORT:-8265}

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
  # evaluation and checkpoints
  --eval_split validation --eval_steps 8 --save_steps 16 --load_checkpoint
  --save_path "$DATA_DIR" --ckpt_path "$DATA_DIR/checkpoint/$NAME"
  "$@"
)
if [[ ${DRY_RUN:-0} == 1 ]]; then
  printf '%s\n' "${job[@]}"
  exit 0
fi

# Whoever reaches the jobs API can run code, so clients must show a token, on loopback too.
export RAY_AUTH_MODE=token
if [[ -z ${RAY_AUTH_TOKEN:-} ]]; then
  export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
  if [[ ! -s $RAY_AUTH_TOKEN_PATH ]]; then
    mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
    (umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")
    echo "launch: wrote a new cluster token to $RAY_AUTH_TOKEN_PATH"
  fi
fi
export RAY_worker_niceness=${RAY_worker_niceness:-0} # Ray's default, 15, starves workers on a busy machine
export RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0}
if [[ $NODE_IP == 127.0.0.1 ]]; then
  # Ray otherwise replaces a loopback address by the machine's own and listens on every interface. The variable is
  # named after the systems on which this is the default.
  export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
fi
api=http://$NODE_IP:$DASHBOARD_PORT

# --block keeps the cluster tied to this one process: ending it ends this cluster and no other.
ray start --head --block --disable-usage-stats --node-ip-address "$NODE_IP" --port "$RAY_PORT" \
  --dashboard-host "$NODE_IP" --dashboard-port "$DASHBOARD_PORT" >>"$LOG_FILE" 2>&1 &
ray_pid=$!
stop_cluster() {
  kill "$ray_pid" 2>/dev/null || true
  wait "$ray_pid" || true
}
trap stop_cluster EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "launch: starting Ray on $NODE_IP; output goes to $LOG_FILE as well"
deadline=$((SECONDS + 120))
until ray job list --address "$api" >/dev/null 2>&1; do
  kill -0 "$ray_pid" 2>/dev/null || {
    tail -n 5 "$LOG_FILE" >&2
    echo "launch: Ray did not start; more is in $LOG_FILE (a port in use? set RAY_PORT or DASHBOARD_PORT)" >&2
    exit 1
  }
  ((SECONDS < deadline)) || {
    echo "launch: Ray's jobs API at $api did not answer within two minutes; see $LOG_FILE" >&2
    exit 1
  }
  sleep 1
done

# Built by json.dumps, so that no character of a path can break the JSON.
runtime_env=$(python3 - "$root${PYTHONPATH:+:$PYTHONPATH}" <<'PY'
import json, sys
print(json.dumps({"env_vars": {"PYTHONPATH": sys.argv[1], "PYTHONUNBUFFERED": "1"}}))
PY
)
PYTHONUNBUFFERED=1 ray job submit --address "$api" --runtime-env-json "$runtime_env" -- "${job[@]}" 2>&1 | tee -a "$LOG_FILE"
