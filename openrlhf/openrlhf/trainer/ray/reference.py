"""The reference model: the Ray worker that holds it, and the way of a policy rank to these workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from openrlhf.config import TrainConfig
from openrlhf.models.actor import Actor, load_causal_lm
from openrlhf.models.logprobs import unwrap
from openrlhf.models.pack_check import check_packs
from openrlhf.models.shared_prefix import SharedPrefixBatch
from openrlhf.trainer.ppo_utils.pack_budget import SCORING_REMEDY, PackBudget
from openrlhf.trainer.ppo_utils.pack_forwards import PackForwards
from openrlhf.trainer.ppo_utils.pack_trial import COLOCATED_SCORING_SHARE, try_packs
from openrlhf.trainer.ray.handles import WorkerHandle
from openrlhf.trainer.ray.role import BasePPORole
from openrlhf.utils.deepspeed.collectives import all_gather_object

SCORING = "scoring"


class ReferenceModelRayActor(BasePPORole):
    """Holds the frozen reference model: its log-probs serve VR-CLI scoring and the KL term."""

    def init_model(self, config: TrainConfig) -> None:
        model = self.strategy.load_model(partial(load_causal_lm, config.reference), config.ref_deepspeed)
        self.actor = Actor(self.strategy.prepare_eval(model, deepspeed=config.ref_deepspeed))
        check_packs(self.actor.model, name=config.reference.pretrain)
        self.budget = PackBudget(config.batch.rollout_pack_tokens, kind=SCORING, remedy=SCORING_REMEDY)
        self.in_step_with_others = config.ref_deepspeed.zero_stage == 3

    def find_pack_tokens(self, config: TrainConfig) -> None:
        """Tries how many tokens a scoring pack may hold, once all models are loaded. Collective."""
        self.budget.tokens = try_packs(
            lambda pack: self._logprobs(pack, 1.0),
            engine=self.actor.model,
            batch=config.batch,
            vocab_size=unwrap(self.actor.model).config.get_text_config().vocab_size,
            largest=config.batch.unshared_group_tokens,
            kind=SCORING,
            share=COLOCATED_SCORING_SHARE if config.placement.colocate_actor_ref else 1.0,
        )

    def forward(self, batch: SharedPrefixBatch, temperature: float = 1.0) -> torch.Tensor:
        """fp32 CPU log-probs (L,) of the batch's labels. Under ZeRO-3 a collective of the reference workers."""
        forwards = PackForwards(
            lambda piece: self._logprobs(piece, temperature),
            engine=self.actor.model,
            budget=self.budget,
            in_step_with_others=self.in_step_with_others,
        )
        (logprobs,) = forwards.run([batch])
        return logprobs

    @torch.no_grad()
    def _logprobs(self, batch: SharedPrefixBatch, temperature: float) -> torch.Tensor:
        return self.actor(batch, temperature).cpu()


class ReferenceClient:
    """One actor rank's way to the reference model's workers.

    Forwards are submitted without waiting. `close_phase` then lets all actor ranks agree on how many forwards each
    worker was given and tops the short ones up with empty ones, so the workers' collectives match call by call.
    """

    def __init__(self, workers: Sequence[WorkerHandle], *, rank: int, world_size: int) -> None:
        """`workers`: handles of `ReferenceModelRayActor`, by rank; `rank` and `world_size` are the actor group's."""
        self._workers = list(workers)
        # Enough workers: each rank has its own, in turn. Fewer workers than ranks: ranks share one.
        self._mine = list(range(len(workers)))[rank::world_size] or [rank % len(workers)]
        self._topped_up_by_me = [w for w in range(len(workers)) if w % world_size == rank]
        self._submitted: Counter[int] = Counter()
        self._turn = 0

    def submit(self, batches: Sequence[SharedPrefixBatch], *, temperature: float = 1.0) -> list[Any]:
        """One object reference a batch, to that batch's label log-probs (L,) fp32."""
        references = []
        for batch in batches:
            worker = self._mine[self._turn % len(self._mine)]
            self._turn += 1
            references.append(self._forward(worker, batch, temperature))
        return references

    def close_phase(self) -> None:
        """Collective over the actor ranks; call it once all of a phase's forwards are submitted, before waiting."""
        totals: Counter[int] = Counter()
        for submitted in all_gather_object(dict(self._submitted)):
            totals.update(submitted)
        target = max(totals.values(), default=0)
        for worker in self._topped_up_by_me:
            for _ in range(target - totals[worker]):
                self._forward(worker, SharedPrefixBatch.empty(), 1.0)
        self._submitted.clear()

    def _forward(self, worker: int, batch: SharedPrefixBatch, temperature: float) -> Any:
        self._submitted[worker] += 1
        return self._workers[worker].forward.remote(batch, temperature)
