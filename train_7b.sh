#!/usr/bin/env bash
# Trains the 7B model with the paper's settings on one node of 8 GPUs: 4 train, 4 generate.
#
#   python compute_baseline_perplexity.py --model_name Qwen/Qwen2.5-7B-Instruct-1M --nice_model_name qwen7b --flash_attn
#   ./train_7b.sh                                        # prompts from ./rl_data, checkpoints to ./checkpoint/ncp_7b
#   DATA_DIR=/data/ncp NAME=try1 ./train_7b.sh --num_episodes 5
#
# scripts/launch_training.sh lists the variables; arguments are passed on to train_ncp.py.
set -euo pipefail
export MODEL=${MODEL:-Qwen/Qwen2.5-7B-Instruct-1M}
export SAMPLES_PER_PROMPT=${SAMPLES_PER_PROMPT:-8}
export NICE_MODEL_NAME=${NICE_MODEL_NAME:-qwen7b}
export NAME=${NAME:-ncp_7b}
exec "$(dirname "${BASH_SOURCE[0]}")/scripts/launch_training.sh" "$@"
