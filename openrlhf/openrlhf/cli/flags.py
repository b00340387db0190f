"""The command line of `train_ncp.py` and `train_ppo_ray`: OpenRLHF 0.6.1.post1's flags, and the few that are new here.

`parse_args` reads the arguments, `cli/validate.py` checks them, `to_config` turns them into the typed `TrainConfig`.
A flag whose help reads "refused" belongs to a feature that this version does not have; `validate` says what to use.
"""

from __future__ import annotations

import argparse
import os
from datetime import datetime

from openrlhf.config import (
    AlgorithmConfig,
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    DeepspeedConfig,
    EngineConfig,
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    PlacementConfig,
    RewardConfig,
    SamplingConfig,
    TrackingConfig,
    TrainConfig,
)
from openrlhf.vr_cli.rewards import SHAPES

ADVANTAGE_ESTIMATORS = ("gae", "reinforce", "rloo", "reinforce_baseline", "group_norm")
KL_ESTIMATORS = ("k1", "k2", "k3")


def build_parser() -> argparse.ArgumentParser:
    """The argument parser, with every flag in its group."""
    parser = argparse.ArgumentParser(
        description="Trains a policy with GRPO and its relatives: Ray places, DeepSpeed trains, vLLM generates.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_placement_flags(parser)
    _add_vllm_flags(parser)
    _add_checkpoint_flags(parser)
    _add_deepspeed_flags(parser)
    _add_lora_flags(parser)
    _add_rollout_flags(parser)
    _add_optimization_flags(parser)
    _add_evaluation_flags(parser)
    _add_model_and_data_flags(parser)
    _add_reward_flags(parser)
    _add_tracking_flags(parser)
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse `argv` (None: the process's own arguments). Unknown flags and wrong types exit with code 2."""
    return build_parser().parse_args(argv)


def _add_placement_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("placement", "A `gpu` is a worker slot on a machine without GPUs.").add_argument
    add("--actor_num_nodes", type=int, default=1, help="nodes that train the policy")
    add("--actor_num_gpus_per_node", type=int, default=8, help="training GPUs on each of them")
    add("--ref_num_nodes", type=int, default=1, help="nodes that hold the reference model")
    add("--ref_num_gpus_per_node", type=int, default=8, help="reference GPUs on each of them")
    add("--colocate_actor_ref", action="store_true", help="policy and reference model share their GPUs")
    add("--reward_num_nodes", type=int, default=1, help="reward model: refused, except for the default and 0")
    add("--reward_num_gpus_per_node", type=int, default=8, help="reward model: refused, except for the default and 0")
    add("--critic_num_nodes", type=int, default=1, help="critic: refused, except for the default and 0")
    add("--critic_num_gpus_per_node", type=int, default=8, help="critic: refused, except for the default and 0")
    add("--colocate_critic_reward", action="store_true", help="refused: there is no critic")
    add("--colocate_all_models", action="store_true", help="refused: the engines have GPUs of their own")
    add("--local_rank", type=int, default=-1, help="refused: Ray gives every worker its rank")


def _add_vllm_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("vLLM engines").add_argument
    add("--vllm_num_engines", type=int, default=None, help="number of engines (at least 1)")
    add("--vllm_tensor_parallel_size", type=int, default=1, help="GPUs of one engine")
    add("--vllm_sync_backend", choices=("nccl", "gloo"), default="nccl", help="weight transfer: gloo on the CPU")
    add("--vllm_sync_with_ray", action="store_true", help="refused: weights go through vLLM's transfer interface")
    add("--vllm_gpu_memory_utilization", type=float, default=0.9, help="share of a GPU's memory that vLLM takes")
    add("--enable_prefix_caching", action="store_true", help="keep a prompt's keys and values for its samples")
    add("--enforce_eager", action="store_true", help="no compilation and no CUDA graphs in vLLM")
    add("--vllm_enable_sleep", action="store_true", help="refused: the engines have GPUs of their own")


def _add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("checkpoints and cadence").add_argument
    add("--save_path", type=str, default="./ckpt", help="folder of the final model, the metrics and the plot")
    add("--ckpt_path", type=str, default="./ckpt/checkpoints_ppo_ray", help="folder of the DeepSpeed checkpoints")
    add("--save_steps", type=int, default=-1, help="steps between two checkpoints; -1: none during training")
    add("--eval_steps", type=int, default=-1, help="steps between two evaluations; -1: none")
    add("--logging_steps", type=int, default=1, help="steps between two rows of training metrics")
    add("--load_checkpoint", action="store_true", help="resume from the newest complete checkpoint, if there is one")
    add("--max_ckpt_num", type=int, default=3, help="complete checkpoints kept")
    add("--max_ckpt_mem", type=int, default=int(1e8), help="disk space for checkpoints, in GB")
    add("--save_hf_ckpt", action="store_true", help="save a Hugging Face folder with every checkpoint")
    add("--disable_ds_ckpt", action="store_true", help="save no DeepSpeed checkpoint (such a run cannot resume)")


def _add_deepspeed_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("DeepSpeed, precision and kernels").add_argument
    add("--zero_stage", type=int, default=2, help="ZeRO stage: 0, 1, 2 or 3")
    add("--zpg", type=int, default=1, help="ZeRO++ secondary partition size (ZeRO-3)")
    add("--bf16", action="store_true", help="train and generate in bfloat16 (off: float32)")
    add("--grad_accum_dtype", type=str, default=None, help="type in which gradients accumulate: fp32 or bf16")
    add("--adam_offload", action="store_true", help="optimizer state and step on the CPU of a GPU machine")
    add("--ref_reward_offload", action="store_true", help="reference weights on the CPU between forwards (ZeRO-3)")
    add("--overlap_comm", action="store_true", help="overlap gradient reduction with the backward pass")
    add("--gradient_checkpointing", action="store_true", help="recompute activations in the backward pass")
    add("--gradient_checkpointing_use_reentrant", action="store_true", help="torch's reentrant checkpointing")
    add("--torch_compile", action="store_true", help="compile the LM head's log-probs (attention: see --flash_attn)")
    add("--flash_attn", action="store_true", help="fused attention over shared-prefix packs (FlexAttention; GPU)")
    add("--use_liger_kernel", action="store_true", help="Liger's fused kernels (GPU)")
    add("--packing_samples", action="store_true", help="always on: the samples of a prompt share one packed sequence")
    add("--disable_fast_tokenizer", action="store_true", help="refused: transformers has fast tokenizers only")
    add("--trust_remote_code", action="store_true", help="new: run the Python code that a model's folder brings")
    add("--actor_init_on_gpu", action="store_true", help="refused: every model loads in its final place")
    add("--enable_ema", action="store_true", help="refused: no moving average of the weights")
    add("--deepspeed_enable_sleep", action="store_true", help="refused: the engines have GPUs of their own")
    add("--ring_attn_size", type=int, default=1, help="refused: no ring attention")
    add("--ring_head_stride", type=int, default=1, help="refused: no ring attention")


def _add_lora_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("LoRA and quantisation", "Refused: all weights are trained.").add_argument
    add("--load_in_4bit", action="store_true", help="refused")
    add("--lora_rank", type=int, default=0, help="refused")
    add("--lora_alpha", type=int, default=16, help="refused")
    add("--target_modules", type=str, nargs="*", default="all-linear", help="refused")
    add("--lora_dropout", type=float, default=0, help="refused")


def _add_rollout_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("rollouts").add_argument
    add("--num_episodes", type=int, default=1, help="passes over the prompts")
    add("--rollout_batch_size", type=int, default=1024, help="prompts of one step, over all ranks")
    add("--n_samples_per_prompt", type=int, default=1, help="responses to each prompt (a group)")
    add("--micro_rollout_batch_size", type=int, default=8, help="full-length samples in one scoring pack")
    add("--prompt_max_len", type=int, default=1024, help="tokens of a prompt; a longer one is an error")
    add("--generate_max_len", type=int, default=1024, help="tokens of a response")
    add("--max_len", type=int, default=None, help="tokens of prompt and response together; None: their sum")
    add("--temperature", type=float, default=1.0, help="sampling temperature, of the log-probs too")
    add("--top_p", type=float, default=1.0, help="nucleus sampling")
    add("--seed", type=int, default=42, help="seed of data order, sampling and initialisation")


def _add_optimization_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("optimization").add_argument
    add("--train_batch_size", type=int, default=128, help="samples of one optimizer step, over all ranks")
    add("--micro_train_batch_size", type=int, default=4, help="full-length samples in one training pack")
    add("--max_epochs", type=int, default=1, help="passes over one step's samples")
    add("--actor_learning_rate", type=float, default=1e-6, help="peak learning rate")
    add("--lr_warmup_ratio", type=float, default=0.03, help="share of the optimizer steps that warm up")
    add("--adam_betas", type=float, nargs=2, default=(0.9, 0.95), help="AdamW's betas")
    add("--l2", type=float, default=0.0, help="AdamW's weight decay")
    add("--max_norm", type=float, default=1.0, help="gradient clipping, global L2 norm")
    add(
        "--advantage_estimator", type=str, choices=ADVANTAGE_ESTIMATORS, default="gae", help="gae is refused: no critic"
    )
    add("--eps_clip", type=float, default=0.2, help="clipping range of the probability ratio")
    add("--gamma", type=float, default=1, help="discount per token")
    add("--init_kl_coef", type=float, default=0.01, help="coefficient of the KL term; 0: no KL term")
    add("--kl_target", type=float, default=None, help="target of the adaptive KL controller; None: fixed coefficient")
    add("--kl_estimator", type=str, choices=KL_ESTIMATORS, default="k1", help="estimator of the KL divergence")
    add("--use_kl_loss", action="store_true", help="add the KL term to the loss (off: take it from the reward)")
    add("--reward_clip_range", type=float, nargs=2, default=(-10, 10), help="rewards are clipped to this range")
    add("--normalize_reward", action="store_true", help="refused: there is no reward model")
    add("--value_clip", type=float, default=0.2, help="critic: refused")
    add("--lambd", type=float, default=0.95, help="critic: refused")
    add("--critic_learning_rate", type=float, default=9e-6, help="critic: refused")
    add("--freezing_actor_steps", type=int, default=-1, help="critic: refused")
    add("--save_value_network", action="store_true", help="critic: refused")
    add("--ptx_coef", type=float, default=0.05, help="pretraining loss: refused, except for the default and 0")
    add("--aux_loss_coef", type=float, default=0, help="mixture-of-experts balancing loss: refused")


def _add_evaluation_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("evaluation").add_argument
    add("--eval_split", type=str, default="test", help="split that is evaluated; `validation` reads val.jsonl")
    add("--eval_temperature", type=float, default=0.7, help="new: sampling temperature; 0: greedy")
    add("--eval_top_p", type=float, default=0.8, help="new: nucleus sampling")
    add("--eval_top_k", type=int, default=20, help="new: most likely tokens kept; -1: all")
    add("--eval_n_samples", type=int, default=1, help="new: responses to each prompt")


def _add_model_and_data_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("models and data").add_argument
    add("--pretrain", type=str, default=None, help="policy and reference model: Hugging Face folder or hub id")
    add("--prompt_data", type=str, default=None, help="prompts, as json@DIR (train.jsonl, val.jsonl, test.jsonl)")
    add("--prompt_data_probs", type=str, default="1.0", help="shares of several data sets, comma-separated")
    add("--prompt_split", type=str, default="train", help="split that is trained on")
    add("--input_key", type=str, default="input", help="field that holds the prompt")
    add("--label_key", type=str, default=None, help="field that holds a label for the reward function")
    add("--input_template", type=str, default=None, help="text around each prompt, with {} in its place")
    add("--apply_chat_template", action="store_true", help="prompts are messages; render them with the chat template")
    add("--max_samples", type=int, default=int(1e8), help="prompts used of each split")
    add("--reward_pretrain", type=str, default=None, help="reward model: refused")
    add("--critic_pretrain", type=str, default=None, help="critic: refused")
    add("--value_head_prefix", type=str, default="score", help="critic: refused")
    add("--pretrain_data", type=str, default=None, help="pretraining loss: refused")
    add("--pretrain_data_probs", type=str, default="1.0", help="pretraining loss: refused")
    add("--pretrain_split", type=str, default="train", help="pretraining loss: refused")
    add("--use_ms", action="store_true", help="refused: no ModelScope downloads")


def _add_reward_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("reward").add_argument
    add(
        "--baseline_ppl_path",
        type=str,
        default=os.environ.get("BASELINE_PPL_PATH"),
        help="new: baseline map of compute_baseline_perplexity.py (or set BASELINE_PPL_PATH)",
    )
    add("--reward_shape", type=str, choices=tuple(SHAPES), default="tiers", help="new: reward of an improvement")
    add("--reward_tiers", type=str, default=None, help="new: improvement in percent:reward, as 0.05:0.5,1:0.9,2:1.0")
    add("--reward_function", type=str, default=None, help="new: file.py:name, instead of a named shape")
    add("--no_system_role", action="store_true", help="refused: the baseline map says how it was made")
    add("--remote_rm_url", type=str, default=None, help="Python file with reward_func, instead of VR-CLI")


def _add_tracking_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("tracking").add_argument
    add("--use_wandb", type=str, default=None, help="log to Weights & Biases: an API key, or `offline`")
    add("--wandb_org", type=str, default=None, help="W&B entity")
    add("--wandb_group", type=str, default=None, help="W&B group")
    add("--wandb_project", type=str, default="openrlhf_train_ppo", help="W&B project")
    run_name = "ppo_" + datetime.now().strftime("%m%dT%H:%M")
    add("--wandb_run_name", type=str, default=run_name, help="name of the run in W&B and TensorBoard")
    add("--use_tensorboard", type=str, default=None, help="log to TensorBoard, in this folder")
    add("--perf", action="store_true", help="also log tokens per second and peak memory")


def to_config(args: argparse.Namespace) -> TrainConfig:
    """The typed configuration of checked arguments (run `validate` first)."""
    return TrainConfig(
        seed=args.seed,
        num_episodes=args.num_episodes,
        policy=_model(args, train=True),
        reference=_model(args, train=False),
        actor_deepspeed=deepspeed_config(args, train=True),
        ref_deepspeed=deepspeed_config(args, train=False),
        optimizer=OptimizerConfig(
            learning_rate=args.actor_learning_rate,
            adam_betas=(args.adam_betas[0], args.adam_betas[1]),
            weight_decay=args.l2,
            lr_warmup_ratio=args.lr_warmup_ratio,
        ),
        rollout_sampling=SamplingConfig(
            n=args.n_samples_per_prompt,
            temperature=args.temperature,
            top_p=args.top_p,
            max_tokens=args.generate_max_len,
        ),
        engine=_engine(args),
        algorithm=_algorithm(args),
        batch=BatchConfig(
            rollout_batch_size=args.rollout_batch_size,
            train_batch_size=args.train_batch_size,
            micro_rollout_batch_size=args.micro_rollout_batch_size,
            micro_train_batch_size=args.micro_train_batch_size,
            n_samples_per_prompt=args.n_samples_per_prompt,
            prompt_max_len=args.prompt_max_len,
            generate_max_len=args.generate_max_len,
        ),
        placement=PlacementConfig(
            actor_num_nodes=args.actor_num_nodes,
            actor_num_gpus_per_node=args.actor_num_gpus_per_node,
            ref_num_nodes=args.ref_num_nodes,
            ref_num_gpus_per_node=args.ref_num_gpus_per_node,
            colocate_actor_ref=args.colocate_actor_ref,
        ),
        checkpoint=_checkpoint(args),
        evaluation=_evaluation(args),
        data=_data(args),
        reward=RewardConfig(
            baseline_ppl_path=args.baseline_ppl_path,
            reward_shape=args.reward_shape,
            reward_tiers=args.reward_tiers,
            reward_function=args.reward_function,
            remote_rm_url=args.remote_rm_url,
        ),
        tracking=_tracking(args),
    )


def _model(args: argparse.Namespace, *, train: bool) -> ModelConfig:
    return ModelConfig(
        pretrain=args.pretrain,
        bf16=args.bf16,
        flash_attn=args.flash_attn,
        gradient_checkpointing=train and args.gradient_checkpointing,
        gradient_checkpointing_use_reentrant=train and args.gradient_checkpointing_use_reentrant,
        torch_compile=args.torch_compile,
        use_liger_kernel=args.use_liger_kernel,
        trust_remote_code=args.trust_remote_code,
    )


def deepspeed_config(args: argparse.Namespace, *, train: bool) -> DeepspeedConfig:
    """What DeepSpeed is told about the policy (`train`) or the reference model."""
    return DeepspeedConfig(
        zero_stage=args.zero_stage,
        bf16=args.bf16,
        adam_offload=train and args.adam_offload,
        param_offload=not train and args.ref_reward_offload,
        zpg=args.zpg,
        grad_accum_dtype=args.grad_accum_dtype,
        overlap_comm=args.overlap_comm,
        max_norm=args.max_norm,
    )


def max_total_tokens(args: argparse.Namespace) -> int:
    """Tokens of a prompt and its response together: what vLLM makes room for."""
    total: int = args.prompt_max_len + args.generate_max_len
    return total if args.max_len is None else min(total, args.max_len)


def _engine(args: argparse.Namespace) -> EngineConfig:
    return EngineConfig(
        num_engines=args.vllm_num_engines,
        tensor_parallel_size=args.vllm_tensor_parallel_size,
        sync_backend=args.vllm_sync_backend,
        enable_prefix_caching=args.enable_prefix_caching,
        enforce_eager=args.enforce_eager,
        gpu_memory_utilization=args.vllm_gpu_memory_utilization,
        max_model_len=max_total_tokens(args),
        bf16=args.bf16,
        trust_remote_code=args.trust_remote_code,
        seed=args.seed,
    )


def _algorithm(args: argparse.Namespace) -> AlgorithmConfig:
    return AlgorithmConfig(
        advantage_estimator=args.advantage_estimator,
        gamma=args.gamma,
        eps_clip=args.eps_clip,
        init_kl_coef=args.init_kl_coef,
        kl_target=args.kl_target,
        kl_estimator=args.kl_estimator,
        use_kl_loss=args.use_kl_loss,
        reward_clip_range=(args.reward_clip_range[0], args.reward_clip_range[1]),
        max_epochs=args.max_epochs,
    )


def _checkpoint(args: argparse.Namespace) -> CheckpointConfig:
    return CheckpointConfig(
        save_path=args.save_path,
        ckpt_path=args.ckpt_path,
        save_steps=args.save_steps,
        save_hf_ckpt=args.save_hf_ckpt,
        disable_ds_ckpt=args.disable_ds_ckpt,
        max_ckpt_num=args.max_ckpt_num,
        max_ckpt_mem_gb=args.max_ckpt_mem,
        load_checkpoint=args.load_checkpoint,
    )


def _evaluation(args: argparse.Namespace) -> EvalConfig:
    return EvalConfig(
        eval_steps=args.eval_steps,
        sampling=SamplingConfig(
            n=args.eval_n_samples,
            temperature=args.eval_temperature,
            top_p=args.eval_top_p,
            top_k=args.eval_top_k,
            max_tokens=args.generate_max_len,
        ),
    )


def _data(args: argparse.Namespace) -> DataConfig:
    return DataConfig(
        prompt_data=args.prompt_data,
        prompt_data_probs=args.prompt_data_probs,
        prompt_split=args.prompt_split,
        eval_split=args.eval_split,
        input_key=args.input_key,
        label_key=args.label_key,
        input_template=args.input_template,
        apply_chat_template=args.apply_chat_template,
        max_samples=args.max_samples,
    )


def _tracking(args: argparse.Namespace) -> TrackingConfig:
    return TrackingConfig(
        logging_steps=args.logging_steps,
        use_tensorboard=args.use_tensorboard,
        use_wandb=args.use_wandb,
        wandb_org=args.wandb_org,
        wandb_group=args.wandb_group,
        wandb_project=args.wandb_project,
        wandb_run_name=args.wandb_run_name,
        perf=args.perf,
    )
