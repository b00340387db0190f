"""The run's typed configuration: plain data that every component takes its own part of.

`cli/flags.py` turns the command line into one `TrainConfig`; nothing below it sees an argparse namespace.
This module imports nothing heavy, so a configuration can be checked before any model, Ray or CUDA is touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

AdvantageEstimator = Literal["reinforce", "rloo", "reinforce_baseline", "group_norm"]
KLEstimator = Literal["k1", "k2", "k3"]
SyncBackend = Literal["nccl", "gloo"]
Precision = Literal["bf16", "tf32", "fp32"]
"""bf16: weights and compute. tf32: float32, but matrix products in TF32 on the GPU. fp32: float32 throughout."""

HIDDEN = "(hidden)"
"""What a run's config.json holds in place of a secret."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """How a causal language model is loaded and run."""

    pretrain: str
    """Hugging Face folder or hub id."""
    bf16: bool = False
    """Weights and compute in bfloat16; otherwise float32."""
    tf32: bool = False
    """Matrix products in TF32 (GPU only): float32 but for the operands' mantissas, which have 10 bits there."""
    flash_attn: bool = False
    """Fused attention (FlexAttention with a block mask; GPU only); otherwise SDPA with a dense mask."""
    gradient_checkpointing: bool = False
    gradient_checkpointing_use_reentrant: bool = False
    torch_compile: bool = False
    """Compile the LM head's log-probs (FlexAttention is always compiled)."""
    use_liger_kernel: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class DeepspeedConfig:
    """What DeepSpeed is told about one model."""

    zero_stage: int = 2
    bf16: bool = False
    adam_offload: bool = False
    """Optimizer state and step on the CPU (DeepSpeedCPUAdam)."""
    param_offload: bool = False
    """Parameters on the CPU between forwards (reference model, ZeRO-3 only)."""
    zpg: int = 1
    """ZeRO++ secondary partition size (zero_hpz_partition_size)."""
    grad_accum_dtype: str | None = None
    overlap_comm: bool = False
    max_norm: float = 1.0
    """Gradient clipping, global L2 norm."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to `min_lr_ratio` of the peak."""

    learning_rate: float = 1e-6
    adam_betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    lr_warmup_ratio: float = 0.03
    min_lr_ratio: float = 0.1


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How vLLM samples responses."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    """-1: off."""
    max_tokens: int = 1024


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """The vLLM engines."""

    num_engines: int = 1
    tensor_parallel_size: int = 1
    device: Literal["cuda", "cpu"] = "cuda"
    """What the engines run on: a fact of the machine or cluster, not a flag."""
    sync_backend: SyncBackend = "nccl"
    """How the trainer's weights reach them."""
    enable_prefix_caching: bool = False
    enforce_eager: bool = False
    gpu_memory_utilization: float = 0.9
    max_model_len: int = 2048
    """Prompt plus response tokens."""
    bf16: bool = False
    trust_remote_code: bool = False
    seed: int = 42


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """Policy-gradient settings (DESIGN of GRPO and its relatives; see trainer/ppo_utils and models/loss.py)."""

    advantage_estimator: AdvantageEstimator = "group_norm"
    gamma: float = 1.0
    eps_clip: float = 0.2
    init_kl_coef: float = 0.01
    kl_target: float | None = None
    """Target of the adaptive KL controller; None keeps the coefficient fixed."""
    kl_estimator: KLEstimator = "k1"
    use_kl_loss: bool = False
    """Add coefficient x KL to the loss; otherwise it is taken from the reward per token."""
    reward_clip_range: tuple[float, float] = (-10.0, 10.0)
    advantage_eps: float = 1e-3
    """Added to a group's standard deviation by `group_norm`, in the reward's unit: far smaller differences vanish."""
    max_epochs: int = 1
    """Passes over one rollout's samples."""


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Sizes. `rollout` counts prompts over all ranks, `train` counts samples over all ranks."""

    rollout_batch_size: int
    train_batch_size: int
    micro_rollout_batch_size: int = 8
    micro_train_batch_size: int = 4
    n_samples_per_prompt: int = 1
    prompt_max_len: int = 1024
    generate_max_len: int = 1024
    max_len: int | None = None
    """Tokens of a prompt and its response together; None: the sum of the two above."""
    pack_tokens: int | Literal["auto", "micro"] = "micro"
    """Token budget of a pack. auto: found by a trial on the GPU. micro: by the micro-batch sizes, see below."""

    @property
    def max_total_tokens(self) -> int:
        """Tokens of a prompt and its response together: what vLLM makes room for."""
        total = self.prompt_max_len + self.generate_max_len
        return total if self.max_len is None else min(total, self.max_len)

    @property
    def rollout_pack_tokens(self) -> int:
        """Token budget of one scoring or log-prob pack. micro: the room that so many full samples take."""
        return self._pack_tokens(self.micro_rollout_batch_size)

    @property
    def train_pack_tokens(self) -> int:
        """Token budget of one training pack."""
        return self._pack_tokens(self.micro_train_batch_size)

    @property
    def group_tokens(self) -> int:
        """Tokens of all full samples of a prompt in one pack."""
        return self.prompt_max_len + self.n_samples_per_prompt * self.generate_max_len

    @property
    def unshared_group_tokens(self) -> int:
        """Tokens of all full samples of a prompt, as if they shared nothing."""
        return self.n_samples_per_prompt * (self.prompt_max_len + self.generate_max_len)

    def _pack_tokens(self, micro_batch_size: int) -> int:
        if isinstance(self.pack_tokens, int):
            return self.pack_tokens
        if self.pack_tokens == "auto":
            return self.unshared_group_tokens  # workers cut packs down to what their trial has found
        return micro_batch_size * (self.prompt_max_len + self.generate_max_len)


@dataclass(frozen=True, kw_only=True)
class PlacementConfig:
    """Which Ray workers are started where. A `gpu` is a worker slot on a machine without GPUs."""

    actor_num_nodes: int = 1
    actor_num_gpus_per_node: int = 8
    ref_num_nodes: int = 1
    ref_num_gpus_per_node: int = 8
    colocate_actor_ref: bool = False


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Cadence (-1: never) and places of what is saved."""

    save_path: str = "./ckpt"
    ckpt_path: str = "./ckpt/checkpoints_ppo_ray"
    save_steps: int = -1
    save_hf_ckpt: bool = False
    disable_ds_ckpt: bool = False
    max_ckpt_num: int = 3
    max_ckpt_mem_gb: float = 1e8
    load_checkpoint: bool = False
    save_best: str | None = None
    """Evaluation metric whose highest value so far has a checkpoint of its own; None: there is no such checkpoint."""
    stop_on_failed_save: bool = False
    """A save that fails (disk full) ends the run; otherwise it is logged and training goes on to the next one."""

    @property
    def writes_checkpoints(self) -> bool:
        """Into `ckpt_path`."""
        return self.save_steps > 0 or self.save_best is not None


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluation: every `eval_steps` (-1: never) and before training, with sampling of its own."""

    eval_steps: int = -1
    controls: str = "empty,synopsis,other"
    """Of VR-CLI: plans that the policy's are compared with, or `none`."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Prompt files and how rows become prompts."""

    prompt_data: str
    prompt_data_probs: str = "1.0"
    prompt_split: str = "train"
    eval_split: str = "test"
    input_key: str = "input"
    label_key: str | None = None
    input_template: str | None = None
    apply_chat_template: bool = False
    max_samples: int = 100_000_000


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Where the reward comes from: VR-CLI (`baseline_ppl_path`) or a Python file (`remote_rm_url`)."""

    baseline_ppl_path: str | None = None
    reward_shape: str = "tiers"
    reward_tiers: str | None = None
    """Overrides the default tiers, as `0.05:0.5,1:0.9,2:1.0` (improvement in percent : reward)."""
    reward_function: str | None = None
    """`file.py:name`, instead of a named shape."""
    min_plan_tokens: int | None = None
    """A plan of fewer tokens is worth less; None: it is worth what it is worth."""
    short_plan_penalty: float | None = None
    """What each missing token costs; None: see `vr_cli.rewards.short_plan_penalty`."""
    remote_rm_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Metrics always go to `<save_path>/metrics.jsonl`; the rest on request."""

    logging_steps: int = 1
    keep_train_completions: int = 100
    """Steps of which one prompt's completions are kept, the last ones; 0: none."""
    use_tensorboard: str | None = None
    """Log directory."""
    use_wandb: str | None = None
    """API key, or `offline`."""
    wandb_org: str | None = None
    wandb_group: str | None = None
    wandb_project: str = "openrlhf_train_ppo"
    wandb_run_name: str = ""
    perf: bool = False
    """Also log tokens per second and peak memory."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    seed: int
    num_episodes: int
    policy: ModelConfig
    reference: ModelConfig
    actor_deepspeed: DeepspeedConfig
    ref_deepspeed: DeepspeedConfig
    optimizer: OptimizerConfig
    rollout_sampling: SamplingConfig
    engine: EngineConfig
    algorithm: AlgorithmConfig
    batch: BatchConfig
    placement: PlacementConfig
    checkpoint: CheckpointConfig
    evaluation: EvalConfig
    data: DataConfig
    reward: RewardConfig
    tracking: TrackingConfig
    reference_dtype: Precision = "fp32"
    """What the reference model computes in, for scoring and KL; `reference` and `ref_deepspeed` follow from it."""

    @property
    def needs_reference_logprobs(self) -> bool:
        """A KL term is in use, so the reference model's log-probs of the responses are needed."""
        return self.algorithm.init_kl_coef > 0
