"""Flags whose feature this version, or this command, does not have: what they may say, and what to use instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Unsupported:
    """A flag whose feature this version, or this command, does not have."""

    flag: str
    allowed: tuple[Any, ...]
    """The values that ask for nothing: the default, and what launch scripts pass to say `none`."""
    why: str
    instead: str


NO_CRITIC = "there is no critic"
NO_CRITIC_INSTEAD = "drop it; group_norm, rloo, reinforce and reinforce_baseline need none"
NO_REWARD_MODEL = "there is no reward model"
NO_LORA = "LoRA and quantisation are not supported"
NO_LORA_INSTEAD = "drop it: all weights are trained; for less memory use --zero_stage 3 and --adam_offload"
NO_SHARING = "the engines have GPUs of their own"
NO_PTX = "there is no pretraining loss"
NO_RING = "there is no ring attention"
NO_RING_INSTEAD = "drop it; a group's samples share one long prompt, and --zero_stage 3 saves memory"

UNSUPPORTED = (
    # flag, allowed values, why it is refused, what to use instead
    Unsupported("advantage_estimator", ("reinforce", "rloo", "reinforce_baseline", "group_norm"),
                f"the default gae needs a critic, and {NO_CRITIC}", "pass --advantage_estimator group_norm"),
    Unsupported("critic_num_nodes", (1, 0), NO_CRITIC, NO_CRITIC_INSTEAD),
    Unsupported("critic_num_gpus_per_node", (8, 0), NO_CRITIC, NO_CRITIC_INSTEAD),
    Unsupported("critic_pretrain", (None,), NO_CRITIC, NO_CRITIC_INSTEAD),
    Unsupported("critic_learning_rate", (9e-6,), NO_CRITIC, NO_CRITIC_INSTEAD),
    Unsupported("value_head_prefix", ("score",), NO_CRITIC, NO_CRITIC_INSTEAD),
    Unsupported("value_clip", (0.2,), NO_CRITIC, NO_CRITIC_INSTEAD),
    Unsupported("lambd", (0.95,), NO_CRITIC, NO_CRITIC_INSTEAD),
    Unsupported("freezing_actor_steps", (-1,), NO_CRITIC, NO_CRITIC_INSTEAD),
    Unsupported("save_value_network", (False,), NO_CRITIC, NO_CRITIC_INSTEAD),
    Unsupported("colocate_critic_reward", (False,), NO_CRITIC, "drop it, or pass --colocate_actor_ref"),
    Unsupported("reward_num_nodes", (1, 0), NO_REWARD_MODEL, "drop it or pass 0; the reference model scores"),
    Unsupported("reward_num_gpus_per_node", (8, 0), NO_REWARD_MODEL, "drop it or pass 0; the reference model scores"),
    Unsupported("reward_pretrain", (None,), NO_REWARD_MODEL, "use --baseline_ppl_path, or --remote_rm_url FILE.py"),
    Unsupported("normalize_reward", (False,), NO_REWARD_MODEL, "drop it; group_norm normalises within each group"),
    Unsupported("colocate_all_models", (False,), NO_SHARING, "pass --colocate_actor_ref"),
    Unsupported("vllm_enable_sleep", (False,), NO_SHARING,
                "drop it; lower --vllm_gpu_memory_utilization if memory is short"),
    Unsupported("deepspeed_enable_sleep", (False,), NO_SHARING, "drop it; use --adam_offload if memory is short"),
    Unsupported("vllm_sync_with_ray", (False,), "weights go through vLLM's transfer interface",
                "drop it, and choose with --vllm_sync_backend"),
    Unsupported("load_in_4bit", (False,), NO_LORA, NO_LORA_INSTEAD),
    Unsupported("lora_rank", (0,), NO_LORA, NO_LORA_INSTEAD),
    Unsupported("lora_alpha", (16,), NO_LORA, NO_LORA_INSTEAD),
    Unsupported("lora_dropout", (0,), NO_LORA, NO_LORA_INSTEAD),
    Unsupported("target_modules", ("all-linear", ["all-linear"]), NO_LORA, NO_LORA_INSTEAD),
    Unsupported("enable_ema", (False,), "there is no moving average of the weights", "drop it"),
    Unsupported("ptx_coef", (0.05, 0.0), NO_PTX, "drop it or pass 0"),
    Unsupported("pretrain_data", (None,), NO_PTX, "drop it; --init_kl_coef keeps the policy near its start"),
    Unsupported("pretrain_data_probs", ("1.0",), NO_PTX, "drop it"),
    Unsupported("pretrain_split", ("train",), NO_PTX, "drop it"),
    Unsupported("aux_loss_coef", (0,), "there is no mixture-of-experts balancing loss", "drop it"),
    Unsupported("ring_attn_size", (1,), NO_RING, NO_RING_INSTEAD),
    Unsupported("ring_head_stride", (1,), NO_RING, NO_RING_INSTEAD),
    Unsupported("actor_init_on_gpu", (False,), "every model loads where it is used", "drop it"),
    Unsupported("local_rank", (-1,), "Ray gives every worker its rank", "drop it"),
    Unsupported("disable_fast_tokenizer", (False,), "transformers 5 has fast tokenizers only", "drop it"),
    Unsupported("no_system_role", (False,), "scoring follows the prompt settings that the baseline map records",
                "drop it; pass it to setup_rl_data.py and compute_baseline_perplexity.py"),
    Unsupported("use_ms", (False,), "models come from folders or the Hugging Face hub",
                "download the model and pass its folder to --pretrain"),
)  # fmt: skip
