"""The policy's Ray workers: load, train, hand the weights to vLLM, save."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from openrlhf.config import TrainConfig
from openrlhf.datasets.prompts_dataset import load_run_prompts
from openrlhf.datasets.sampler import RolloutSchedule
from openrlhf.models.actor import Actor, load_causal_lm
from openrlhf.models.logprobs import unwrap
from openrlhf.models.pack_check import check_packs
from openrlhf.trainer.plot import plot_metrics
from openrlhf.trainer.ppo_trainer import PPOTrainer, TrainingRun
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.metrics import PhaseTimer
from openrlhf.trainer.ppo_utils.policy_update import PolicyUpdate
from openrlhf.trainer.ppo_utils.reward_file import RewardFileExperienceMaker
from openrlhf.trainer.ray.handles import EngineHandle, WorkerHandle
from openrlhf.trainer.ray.reference import ReferenceClient
from openrlhf.trainer.ray.role import BasePPORole
from openrlhf.trainer.ray.weight_transfer import WeightSender
from openrlhf.trainer.resume import find_resume_point
from openrlhf.trainer.tracking import MetricsLogger
from openrlhf.utils.deepspeed.collectives import barrier
from openrlhf.utils.deepspeed.parameters import gather_params, named_parameter_buckets
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy
from openrlhf.utils.tokenizer import get_tokenizer

WEIGHT_BUCKET_BYTES = 512 * 2**20


class ActorPPOTrainer(PPOTrainer):
    """A `PPOTrainer` whose samples come from vLLM engines that get the weights after every step."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        strategy: DeepspeedStrategy,
        actor: Actor,
        tokenizer: PreTrainedTokenizerBase,
        engines: Sequence[EngineHandle],
        reference_workers: Sequence[WorkerHandle],
        run: TrainingRun,
        remote_experience_maker_class: type[RemoteExperienceMaker] = RewardFileExperienceMaker,
    ) -> None:
        """`engines`, `reference_workers`: handles of `LLMRayActor` and `ReferenceModelRayActor`, by rank."""
        experience_maker = remote_experience_maker_class(
            config=config,
            actor=actor,
            tokenizer=tokenizer,
            engines=engines,
            reference=ReferenceClient(reference_workers, rank=strategy.rank, world_size=strategy.world_size),
        )
        super().__init__(
            config=config,
            strategy=strategy,
            actor=actor,
            tokenizer=tokenizer,
            experience_maker=experience_maker,
            run=run,
        )
        self.weight_sender: WeightSender | None = None
        if strategy.is_rank_0():
            self.weight_sender = WeightSender(
                backend=config.engine.sync_backend,
                tensor_parallel_size=config.engine.tensor_parallel_size,
                bucket_bytes=WEIGHT_BUCKET_BYTES,
            )
            self.weight_sender.connect(list(engines))

    def sync_weights(self, timer: PhaseTimer) -> None:
        """Rank 0 sends; under ZeRO-3 every rank takes part in gathering, bucket by bucket."""
        with timer.phase("transfer"):
            if self.weight_sender is not None:
                self.weight_sender.send(self._full_weights())
            else:
                for _ in self._full_weights():
                    pass
            barrier()

    def _full_weights(self) -> Iterator[tuple[str, Tensor]]:
        for bucket in named_parameter_buckets(unwrap(self.actor.model), WEIGHT_BUCKET_BYTES):
            with gather_params(parameter for _, parameter in bucket):
                yield from bucket


class ActorModelRayActor(BasePPORole):
    """One rank of the policy. What it is trained for is the experience maker's affair."""

    remote_experience_maker_class: type[RemoteExperienceMaker] = RewardFileExperienceMaker
    """The task, where the constructor names no other; the driver asks it about flags and data."""

    def __init__(
        self, *, rank: int, world_size: int, remote_experience_maker_class: type[RemoteExperienceMaker] | None = None
    ) -> None:
        super().__init__(rank=rank, world_size=world_size)
        if remote_experience_maker_class is not None:
            self.remote_experience_maker_class = remote_experience_maker_class

    @classmethod
    def of_task(cls, task: type[RemoteExperienceMaker]) -> type[Self]:
        """This class with another task."""
        return type(cls.__name__, (cls,), {"remote_experience_maker_class": task})

    def init_model(self, config: TrainConfig) -> None:
        """Loads prompts and policy, and makes the policy's engine and optimizer."""
        self.config = config
        self.tokenizer = get_tokenizer(config.policy.pretrain, trust_remote_code=config.policy.trust_remote_code)
        self.train_prompts, self.eval_prompts = load_run_prompts(
            config, self.tokenizer, self.remote_experience_maker_class.datapoint_resolver(config)
        )
        self.schedule = make_schedule(config, len(self.train_prompts))
        self.resume_from = find_resume_point(self.strategy, config, self.train_prompts)
        model = self.strategy.load_model(partial(load_causal_lm, config.policy), config.actor_deepspeed)
        engine = self.strategy.prepare_train(
            model,
            deepspeed=config.actor_deepspeed,
            optimizer=config.optimizer,
            num_optimizer_steps=(self.resume_from.state if self.resume_from else self.schedule).num_updates,
        )
        check_packs(engine, name=config.policy.pretrain)
        self.actor = Actor(engine)
        self.pack_tokens: int | None = None

    def find_pack_tokens(self) -> None:
        """Tries how many tokens a training pack may hold, once all models are loaded. Collective."""
        update = PolicyUpdate(config=self.config, strategy=self.strategy, actor=self.actor)
        self.pack_tokens = update.find_pack_tokens()

    def fit(
        self, engines: Sequence[EngineHandle], reference_workers: Sequence[WorkerHandle], run_config: dict[str, Any]
    ) -> None:
        """Trains to the end. `run_config`: the resolved command line, kept beside the metrics."""
        tracker = None
        if self.strategy.is_rank_0():
            tracker = MetricsLogger(self.config.tracking, self.config.checkpoint.save_path, run_config)
        trainer = ActorPPOTrainer(
            config=self.config,
            strategy=self.strategy,
            actor=self.actor,
            tokenizer=self.tokenizer,
            engines=engines,
            reference_workers=reference_workers,
            run=TrainingRun(
                train_prompts=self.train_prompts,
                eval_prompts=self.eval_prompts,
                schedule=self.schedule,
                tracker=tracker,
                resume_from=self.resume_from,
            ),
            remote_experience_maker_class=self.remote_experience_maker_class,
        )
        if self.pack_tokens is not None:
            trainer.limit_packs(self.pack_tokens)
        trainer.fit()
        if tracker is not None:
            tracker.close()

    def save_model(self) -> None:
        """Saves the trained policy as a Hugging Face folder, `final_model` in `--save_path`, and draws the metrics."""
        path = Path(self.config.checkpoint.save_path) / "final_model"
        self.strategy.save_hf_model(self.actor.model, self.tokenizer, path)
        if self.strategy.is_rank_0():
            metrics = path.with_name("metrics.jsonl")
            plot_metrics(metrics, metrics.with_suffix(".png"))


def make_schedule(config: TrainConfig, num_prompts: int) -> RolloutSchedule:
    return RolloutSchedule(
        num_prompts=num_prompts,
        rollout_batch_size=config.batch.rollout_batch_size,
        num_episodes=config.num_episodes,
        seed=config.seed,
        samples_per_prompt=config.batch.n_samples_per_prompt,
        train_batch_size=config.batch.train_batch_size,
        max_epochs=config.algorithm.max_epochs,
    )
