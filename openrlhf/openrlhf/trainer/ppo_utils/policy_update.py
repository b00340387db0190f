"""From experiences to optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from openrlhf.config import TrainConfig
from openrlhf.models.actor import Actor
from openrlhf.models.logprobs import unwrap
from openrlhf.models.loss import PolicyLossInputs, PolicyLossOutput, policy_loss
from openrlhf.models.shared_prefix import SharedPrefixBatch
from openrlhf.trainer.ppo_utils.finite import REMEDY, NonFiniteError, refuse_non_finite
from openrlhf.trainer.ppo_utils.lockstep import in_lockstep
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics
from openrlhf.trainer.ppo_utils.pack_budget import TRAINING_REMEDY, PackBudget, TooBig
from openrlhf.trainer.ppo_utils.pack_trial import pending_optimizer_bytes, try_packs
from openrlhf.trainer.ppo_utils.replay_buffer import ReplayBuffer, TrainBatch
from openrlhf.trainer.ppo_utils.samples import Experience
from openrlhf.utils.deepspeed.collectives import all_reduce
from openrlhf.utils.deepspeed.out_of_memory import drop_gradients, in_step
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy
from openrlhf.utils.devices import current_device
from openrlhf.utils.progress import progress_bar
from openrlhf.utils.seeds import Stream, derive_seed


class PolicyUpdate:
    """Updates the policy on one rollout's experiences, together with the other ranks."""

    def __init__(self, *, config: TrainConfig, strategy: DeepspeedStrategy, actor: Actor) -> None:
        """`actor.model` is the engine that `strategy.prepare_train` made."""
        self.config = config
        self.strategy = strategy
        self.actor = actor
        self.kl_in_loss = config.algorithm.use_kl_loss and config.needs_reference_logprobs
        self.budget = PackBudget(config.batch.train_pack_tokens, kind="training", remedy=TRAINING_REMEDY)

    def run(
        self, experiences: list[Experience], *, step: int, num_updates: int, kl_coef: float, metrics: MeanMetrics
    ) -> None:
        """Goes `max_epochs` times over the rollout's samples, in `num_updates` optimizer steps each. Collective."""
        replay_buffer = ReplayBuffer(experiences)
        for epoch in range(self.config.algorithm.max_epochs):
            updates = replay_buffer.updates(
                num_updates, seed=derive_seed(self.config.seed, Stream.UPDATE_ORDER, step, epoch)
            )
            with progress_bar("optimizing", total=num_updates, enabled=self.strategy.is_rank_0()) as bar:
                for samples in updates:
                    self.optimizer_step(replay_buffer, samples, step=step, kl_coef=kl_coef, metrics=metrics)
                    bar.update(1)

    def optimizer_step(
        self,
        replay_buffer: ReplayBuffer,
        samples: Sequence[tuple[int, int]],
        *,
        step: int,
        kl_coef: float,
        metrics: MeanMetrics,
    ) -> None:
        """One optimizer step over all ranks' samples: the loss is the mean over all of them. Collective.

        Raises:
            NonFiniteError: the loss or the gradient is not finite; the weights are as they were.
            UserError: there is no memory for a single sequence.
        """
        num_samples_everywhere = all_reduce(len(samples), op="sum")
        if num_samples_everywhere == 0:
            return
        # DeepSpeed averages gradients over ranks; the sum over micro-batches and ranks must be a mean over samples.
        scale = self.strategy.world_size / num_samples_everywhere
        micro_batches, outputs = self.accumulate(replay_buffer, samples, scale=scale, kl_coef=kl_coef)
        losses = [output.loss_sum for output in outputs]
        for train_batch, output in zip(micro_batches, outputs, strict=True):
            metrics.add_sums({"loss": output.loss_sum, **output.metric_sums}, train_batch.batch.num_samples)
        refuse_non_finite(non_finite_losses(losses, micro_batches), where=f"step {step + 1}")
        metrics.add("learning_rate", [self.actor.model.get_lr()[0]])
        try:
            metrics.add("grad_norm", [self.strategy.step(self.actor.model)])
        except FloatingPointError as error:
            raise NonFiniteError(f"step {step + 1}: {error}; {REMEDY}") from error

    def accumulate(
        self, replay_buffer: ReplayBuffer, samples: Sequence[tuple[int, int]], *, scale: float, kl_coef: float
    ) -> tuple[list[TrainBatch], list[PolicyLossOutput]]:
        """Accumulates the gradient of `scale` times the samples' loss; returns what ran, without graphs. Collective.

        Where memory runs out on any rank, all ranks drop what they have accumulated, and repeat with smaller packs: how
        much of a broken pass has reached the gradients depends on where it broke.
        """
        empty = TrainBatch.empty(with_reference=self.kl_in_loss)
        while True:
            own = replay_buffer.micro_batches(samples, max_tokens=self.budget.tokens)
            micro_batches, outputs, failed = [], [], []
            for train_batch, is_last in in_lockstep(own, empty):
                run = partial(self.forward_backward, scale=scale, kl_coef=kl_coef, is_last=is_last)
                output = in_step(self.actor.model, partial(run, train_batch), partial(run, empty))
                if output is None:
                    failed.append(TooBig.of(train_batch.batch))
                else:
                    micro_batches.append(train_batch)
                    outputs.append(output)
            if not self.budget.lower(failed, together=True):
                return micro_batches, outputs
            drop_gradients(self.actor.model)

    def find_pack_tokens(self) -> int:
        """Tries how many tokens a training pack may hold; neither weights nor gradients change. Collective."""
        engine = self.actor.model
        return try_packs(
            self._try,
            engine=engine,
            batch=self.config.batch,
            vocab_size=unwrap(engine).config.get_text_config().vocab_size,
            largest=self.config.batch.group_tokens,
            kind="training",
            reserved=pending_optimizer_bytes(engine),
        )

    def _try(self, batch: SharedPrefixBatch) -> PolicyLossOutput:
        """One pass as training runs it."""
        nothing = torch.zeros(batch.labels.numel())
        train_batch = TrainBatch(
            batch=batch,
            old_logprobs=nothing,
            advantages=nothing,
            ref_logprobs=nothing if self.kl_in_loss else None,
        )
        return self.forward_backward(train_batch, scale=1.0, kl_coef=0.0, is_last=True)

    def forward_backward(
        self, train_batch: TrainBatch, *, scale: float, kl_coef: float, is_last: bool
    ) -> PolicyLossOutput:
        """Adds the gradient of one packed micro-batch; `is_last` of all ranks' micro-batches of an optimizer step."""
        output = self.loss(train_batch, kl_coef=kl_coef)
        self.strategy.backward(self.actor.model, output.loss_sum * scale, is_last=is_last)
        return replace(output, loss_sum=output.loss_sum.detach())

    def loss(self, train_batch: TrainBatch, *, kl_coef: float) -> PolicyLossOutput:
        """The policy loss of one packed micro-batch, summed over its samples."""
        device = current_device()
        ref_logprobs = train_batch.ref_logprobs if self.kl_in_loss else None
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


def non_finite_losses(losses: list[Tensor], micro_batches: list[TrainBatch]) -> list[str]:
    """A line for each micro-batch whose loss is not finite. The one place of an update that waits for the device."""
    finite = torch.stack(losses).isfinite().tolist()
    return [f"loss not finite for {b.source}" for b, ok in zip(micro_batches, finite, strict=False) if not ok]
