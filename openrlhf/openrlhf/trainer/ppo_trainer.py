"""The training loop. One `PPOTrainer` runs on every actor rank, all in step.

                        one step, on every actor rank
    prompts --> vLLM engines --> samples --> reference log-probs \\
                                   |    \\-> VR-CLI scoring        >--> rewards --> advantages --> experiences
                                   \\-----> old log-probs         /                                    |
    engines <-- new weights <------------- optimizer steps <------------------------------ replay buffer

`RemoteExperienceMaker` does the upper line, this file the lower one, evaluation, checkpoints and the record of it all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from openrlhf.config import TrainConfig
from openrlhf.datasets.prompts_dataset import PromptDataset
from openrlhf.datasets.sampler import RolloutSchedule
from openrlhf.models.actor import Actor
from openrlhf.models.loss import PolicyLossInputs, PolicyLossOutput, policy_loss
from openrlhf.trainer.ppo_utils.advantages import COMPARED_WITHIN_GROUP
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.finite import REMEDY, NonFiniteError, refuse_non_finite
from openrlhf.trainer.ppo_utils.kl_controller import make_kl_controller
from openrlhf.trainer.ppo_utils.lockstep import in_lockstep
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics, PhaseTimer
from openrlhf.trainer.ppo_utils.replay_buffer import ReplayBuffer, TrainBatch
from openrlhf.trainer.ppo_utils.rollout import ScoredSamples
from openrlhf.trainer.ppo_utils.rollout_metrics import EQUAL_REWARDS, add_reward_metrics
from openrlhf.trainer.ppo_utils.samples import Experience, Prompt
from openrlhf.trainer.resume import (
    TrainState,
    check_same_settings,
    log_changes,
    read_state,
    resumed_kl_coef,
    run_settings,
)
from openrlhf.trainer.tracking import MetricsLogger
from openrlhf.utils.checkpoints import Checkpoint
from openrlhf.utils.deepspeed.collectives import all_gather_object, all_reduce
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy
from openrlhf.utils.devices import current_device, peak_memory_gib
from openrlhf.utils.disk import WriteError
from openrlhf.utils.logging import init_logger
from openrlhf.utils.progress import progress_bar

logger = init_logger(__name__)


class PPOTrainer:
    """Trains the policy of one actor rank, together with the other ranks. Subclasses say how weights reach vLLM."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        strategy: DeepspeedStrategy,
        actor: Actor,
        tokenizer: PreTrainedTokenizerBase,
        experience_maker: RemoteExperienceMaker,
        train_prompts: PromptDataset,
        eval_prompts: PromptDataset | None,
        schedule: RolloutSchedule,
        tracker: MetricsLogger | None,
        resume_from: Checkpoint | None = None,
    ) -> None:
        """`actor.model` is the engine that `strategy.prepare_train` made; `tracker` lives on rank 0."""
        self.config = config
        self.strategy = strategy
        self.actor = actor
        self.tokenizer = tokenizer
        self.experience_maker = experience_maker
        self.train_prompts = train_prompts
        self.eval_prompts = eval_prompts
        self.schedule = schedule
        self.tracker = tracker
        self.resume_from = resume_from
        self.settings = run_settings(config, train_prompts)
        self.lr_updates = schedule.num_updates
        self.kl_controller = make_kl_controller(config.algorithm.init_kl_coef, config.algorithm.kl_target)

    def fit(self) -> None:
        """Trains from the newest checkpoint, or from the start, to the last step."""
        first_step = self.resume()
        self.sync_weights(PhaseTimer())
        if first_step == 0 and self.evaluates:
            self.evaluate(step=0)
        with progress_bar("training", total=self.schedule.num_steps, enabled=self.strategy.is_rank_0()) as bar:
            bar.update(first_step)
            for step in range(first_step, self.schedule.num_steps):
                metrics = self.train_step(step)
                done = step + 1
                self.log_step(done, metrics)
                self.warn_without_signal(done, metrics)
                if self.evaluates and done % self.config.evaluation.eval_steps == 0:
                    self.evaluate(step=done)
                if self.saves_at(done):
                    self.save_checkpoint(done)
                bar.update(1)

    def train_step(self, step: int) -> dict[str, float]:
        """Rollout `step` and its optimizer steps; returns the metrics over all ranks."""
        timer, metrics = PhaseTimer(), MeanMetrics()
        kl_coef = self.kl_controller.value
        with timer.phase("step"):
            prompts = self._share([self.train_prompts[i] for i in self.schedule.batch(step)])
            experiences = self.experience_maker.make_experiences(
                prompts, step=step, kl_coef=kl_coef, timer=timer, metrics=metrics
            )
            with timer.phase("train"):
                self.train_on(experiences, step=step, kl_coef=kl_coef, metrics=metrics)
            self.sync_weights(timer)
        reduced = metrics.reduce()
        self.kl_controller.update(reduced.get("kl", 0.0), self.schedule.num_samples(step))
        return {**reduced, "kl_coef": kl_coef, **timer.metrics(), **self._performance(experiences, timer)}

    def train_on(self, experiences: list[Experience], *, step: int, kl_coef: float, metrics: MeanMetrics) -> None:
        """Goes `max_epochs` times over the rollout's samples, one optimizer step every `train_batch_size`."""
        replay_buffer = ReplayBuffer(experiences)
        batch = self.config.batch
        num_updates = self.schedule.updates_per_epoch(step)
        for epoch in range(self.config.algorithm.max_epochs):
            updates = replay_buffer.updates(num_updates, seed=self.config.seed + step * 1000 + epoch)
            with progress_bar("optimizing", total=num_updates, enabled=self.strategy.is_rank_0()) as bar:
                for samples in updates:
                    micro_batches = replay_buffer.micro_batches(samples, max_tokens=batch.train_pack_tokens)
                    self.optimizer_step(micro_batches, len(samples), step=step, kl_coef=kl_coef, metrics=metrics)
                    bar.update(1)

    def optimizer_step(
        self, micro_batches: list[TrainBatch], num_samples: int, *, step: int, kl_coef: float, metrics: MeanMetrics
    ) -> None:
        """One optimizer step over all ranks' micro-batches: the loss is the mean over all their samples.

        Raises:
            NonFiniteError: the loss or the gradient is not finite; the weights are as they were.
        """
        num_samples_everywhere = all_reduce(num_samples, op="sum")
        if num_samples_everywhere == 0:
            return
        # DeepSpeed averages gradients over ranks; the sum over micro-batches and ranks must be a mean over samples.
        scale = self.strategy.world_size / num_samples_everywhere
        empty = TrainBatch.empty(with_reference=self._kl_in_loss)
        losses: list[Tensor] = []
        for train_batch, is_last in in_lockstep(micro_batches, empty):
            output = self.loss(train_batch, kl_coef=kl_coef)
            self.strategy.backward(self.actor.model, output.loss_sum * scale, is_last=is_last)
            losses.append(output.loss_sum.detach())
            metrics.add_sum("loss", output.loss_sum.item(), train_batch.batch.num_samples)
            for name, value in output.metric_sums.items():
                metrics.add_sum(name, value, train_batch.batch.num_samples)
        finite = torch.stack(losses).isfinite().tolist()
        refuse_non_finite(
            (f"loss not finite for {b.source}" for b, ok in zip(micro_batches, finite, strict=False) if not ok),
            where=f"step {step + 1}",
        )
        metrics.add("learning_rate", [self.actor.model.get_lr()[0]])
        try:
            metrics.add("grad_norm", [self.strategy.step(self.actor.model)])
        except FloatingPointError as error:
            raise NonFiniteError(f"step {step + 1}: {error}; {REMEDY}") from error

    def loss(self, train_batch: TrainBatch, *, kl_coef: float) -> PolicyLossOutput:
        """The policy loss of one packed micro-batch, summed over its samples."""
        device = current_device()
        ref_logprobs = train_batch.ref_logprobs if self._kl_in_loss else None
        inputs = PolicyLossInputs(
            logprobs=self.actor(train_batch.batch, self.config.rollout_sampling.temperature),
            old_logprobs=train_batch.old_logprobs.to(device),
            advantages=train_batch.advantages.to(device),
            label_samples=train_batch.batch.label_samples.to(device),
            num_samples=train_batch.batch.num_samples,
            ref_logprobs=None if ref_logprobs is None else ref_logprobs.to(device),
        )
        algorithm = self.config.algorithm
        return policy_loss(inputs, eps_clip=algorithm.eps_clip, kl_coef=kl_coef, kl_estimator=algorithm.kl_estimator)

    def sync_weights(self, timer: PhaseTimer) -> None:
        """Brings the policy's weights to whatever samples from it."""
        raise NotImplementedError

    # ---- evaluation --------------------------------------------------------------------------------------------

    @property
    def evaluates(self) -> bool:
        return self.eval_prompts is not None and self.config.evaluation.eval_steps > 0

    def evaluate(self, step: int) -> None:
        """Samples and scores the evaluation split; logs the means and keeps every completion."""
        assert self.eval_prompts is not None
        timer, metrics = PhaseTimer(), MeanMetrics()
        with timer.phase("eval"):
            scored = self.experience_maker.evaluate(
                self._share(list(self.eval_prompts)), self.config.evaluation.sampling, step=step, timer=timer
            )
        add_reward_metrics(metrics, scored, self.config.algorithm.reward_clip_range)
        reduced = {**metrics.reduce(), **timer.metrics()}
        shares = all_gather_object([row for group in scored for row in completion_rows(group)])
        if self.tracker is not None:
            rows = sorted(
                (row for share in shares for row in share), key=lambda row: (row["prompt_index"], row["sample"])
            )
            self.tracker.log(step, "eval", reduced)
            self.tracker.log_completions(step, rows)
            logger.info("evaluation at step %d: %s", step, summary(reduced))

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def saves_at(self, done: int) -> bool:
        """Every `save_steps`, and at the end."""
        save_steps = self.config.checkpoint.save_steps
        return save_steps > 0 and (done % save_steps == 0 or done == self.schedule.num_steps)

    def save_checkpoint(self, done: int) -> None:
        checkpoint = self.config.checkpoint
        tag = f"global_step{done}"
        state = TrainState(
            step=done, kl_coef=self.kl_controller.value, num_updates=self.lr_updates, settings=self.settings
        )
        try:
            if not checkpoint.disable_ds_ckpt:
                self.strategy.save_checkpoint(
                    self.actor.model,
                    f"{checkpoint.ckpt_path}/_actor",
                    tag,
                    state.to_dict(),
                    max_num=checkpoint.max_ckpt_num,
                    max_gb=checkpoint.max_ckpt_mem_gb,
                )
            if checkpoint.save_hf_ckpt:
                self.strategy.save_hf_model(self.actor.model, self.tokenizer, f"{checkpoint.ckpt_path}/{tag}_hf")
        except WriteError as error:
            if checkpoint.stop_on_failed_save:
                raise
            logger.error("step %d is not saved: %s; training goes on to the next save", done, error)

    def resume(self) -> int:
        """Continues from `resume_from`, if there is one; returns how many steps are done.

        Raises:
            UserError: the checkpoint was made with settings under which its steps mean something else.
        """
        if self.resume_from is None:
            return 0
        state = read_state(self.resume_from)
        check_same_settings(state.settings, self.settings)
        log_changes(state, self.settings, num_updates=self.schedule.num_updates)
        self.strategy.load_checkpoint(self.actor.model, self.resume_from)
        self.lr_updates = state.num_updates
        self.kl_controller.value = resumed_kl_coef(state, self.settings)
        logger.info("resumed after step %d of %d", state.step, self.schedule.num_steps)
        if self.tracker is not None:
            self.tracker.resume(state.step)
        return state.step

    # ---- the rest ----------------------------------------------------------------------------------------------

    @property
    def _samples_per_prompt(self) -> int:
        return self.config.batch.n_samples_per_prompt

    @property
    def _kl_in_loss(self) -> bool:
        return self.config.algorithm.use_kl_loss and self.config.needs_reference_logprobs

    def _share(self, prompts: list[Prompt]) -> list[Prompt]:
        """This rank's prompts; shares differ by one at most, and may be empty."""
        return prompts[self.strategy.rank :: self.strategy.world_size]

    def log_step(self, done: int, metrics: dict[str, float]) -> None:
        if self.tracker is not None and done % self.config.tracking.logging_steps == 0:
            self.tracker.log(done, "train", metrics)
            logger.info("step %d/%d: %s", done, self.schedule.num_steps, summary(metrics))

    def warn_without_signal(self, done: int, metrics: dict[str, float]) -> None:
        """Says so where no group of a step has rewards that differ: with an estimator that compares them, all
        advantages are 0."""
        compares = self.config.algorithm.advantage_estimator in COMPARED_WITHIN_GROUP
        if self.tracker is not None and compares and metrics.get(EQUAL_REWARDS) == 1.0:
            logger.warning(
                "step %d: in every group all rewards are equal (mean %.4g), so the rewards teach nothing in this step; "
                "if that stays so, sample more (--n_samples_per_prompt, --temperature) or take a reward with a finer "
                "scale (for VR-CLI --reward_shape nll_delta)",
                done,
                metrics["reward"],
            )

    def _performance(self, experiences: list[Experience], timer: PhaseTimer) -> dict[str, float]:
        """With --perf: sampled tokens per second of the whole step and of sampling, and the highest peak memory."""
        if not self.config.tracking.perf:
            return {}
        num_tokens = all_reduce(sum(len(c.token_ids) for e in experiences for c in e.samples.completions), op="sum")
        return {
            "perf/tokens_per_s": num_tokens / timer.seconds["step"],
            "perf/generated_tokens_per_s": num_tokens / timer.seconds["generate"],
            "perf/actor_peak_memory_gib": all_reduce(peak_memory_gib(), op="max"),
        }


def completion_rows(group: ScoredSamples) -> list[dict[str, Any]]:
    """One JSON-ready row for each completion of an evaluation."""
    prompt, rewards = group.samples.prompt, group.rewards
    return [
        {
            "prompt_index": prompt.index,
            "datapoint_id": prompt.datapoint_id,
            "sample": i,
            "prompt": prompt.text,
            "completion": response,
            "finish_reason": completion.finish_reason,
            "response_length": len(completion.token_ids),
            "reward": rewards.rewards[i],
            **{name: values[i] for name, values in rewards.metrics.items()},
        }
        for i, (response, completion) in enumerate(zip(group.samples.responses, group.samples.completions, strict=True))
    ]


def summary(metrics: dict[str, float]) -> str:
    """The numbers to watch, on one line."""
    names = ("reward", "improvement_pct", "kl", "response_length", "time/step_s", "time/eval_s")
    return ", ".join(f"{name.removeprefix('time/')} {metrics[name]:.4g}" for name in names if name in metrics)
