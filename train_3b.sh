#!/usr/bin/env bash
# Trains the 3B model with the paper's settings on one node of 8 GPUs: 4 train, 4 generate.
#
#   python compute_baseline_perplexity.py --model_name Qwen/Qwen2.5-3B-Instruct --nice_model_name qwen3b --flash_attn
#   ./train_3b.sh                                        # prompts from ./rl_data, checkpoints to ./checkpoint/ncp_3b
#   DATA_DIR=/data/ncp NAME=try1 ./train_3b.sh --num_episodes 5
#
# scripts/launch_training.sh lists the variables; arguments are passed on to train_ncp.py.
set -euo pipefail
export MODEL=${MODEL:-Qwen/Qwen2.5-3B-Instruct}
export SAMPLES_PER_PROMPT=${SAMPLES_PER_PROMPT:-16}
export NICE_MODEL_NAME=${NICE_MODEL_NAME:-qwen3b}
export NAME=${NAME:-ncp_3b}
exec "$(dirname "${BASH_SOURCE[0]}")/scripts/launch_training.sh" "$@"
