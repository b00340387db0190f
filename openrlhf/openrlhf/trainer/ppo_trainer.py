"""The training loop. One `PPOTrainer` runs on every actor rank, all in step.

                        one step, on every actor rank
    prompts --> vLLM engines --> samples --> reference log-probs \\
                                   |    \\-> VR-CLI scoring        >--> rewards --> advantages --> experiences
                                   \\-----> old log-probs         /                                    |
    engines <-- new weights <------------- optimizer steps <------------------------------ replay buffer

`RemoteExperienceMaker` does the upper line, `PolicyUpdate` the lower one; evaluation, what a resumed run may change and
the record of it all have files of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from openrlhf.config import TrainConfig
from openrlhf.datasets import PromptDataset, RolloutSchedule
from openrlhf.models.actor import Actor
from openrlhf.trainer.best import BestEvaluation, better_evaluation, resumed_best
from openrlhf.trainer.evaluation import Evaluator, completion_rows
from openrlhf.trainer.guard import Guard
from openrlhf.trainer.metrics_line import metrics_line, seconds_left
from openrlhf.trainer.performance import performance_metrics
from openrlhf.trainer.ppo_utils.advantages import COMPARED_WITHIN_GROUP
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.kl_controller import make_kl_controller
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics, PhaseTimer
from openrlhf.trainer.ppo_utils.policy_update import PolicyUpdate
from openrlhf.trainer.ppo_utils.rollout import ScoredSamples
from openrlhf.trainer.ppo_utils.rollout_metrics import EQUAL_REWARDS
from openrlhf.trainer.ppo_utils.samples import Experience, Prompt
from openrlhf.trainer.resume import (
    ResumePoint,
    TrainState,
    log_changes,
    resumed_kl_coef,
    run_settings,
)
from openrlhf.trainer.tracking import MetricsLogger, set_aside
from openrlhf.utils.checkpoints import ACTOR_FOLDER, BEST_FOLDER, prune_models
from openrlhf.utils.deepspeed.strategy import DeepspeedStrategy
from openrlhf.utils.devices import release_cached_memory
from openrlhf.utils.disk import WriteError
from openrlhf.utils.logging import init_logger
from openrlhf.utils.progress import doing, run_bar

logger = init_logger(__name__)

NUM_MEASURED_PROMPTS = 2


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What a run goes through, where it starts, and who records it."""

    train_prompts: PromptDataset
    eval_prompts: PromptDataset | None
    """None: there are no evaluations."""
    schedule: RolloutSchedule
    tracker: MetricsLogger | None
    """On rank 0."""
    resume_from: ResumePoint | None = None


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
        run: TrainingRun,
    ) -> None:
        """`actor.model` is the engine that `strategy.prepare_train` made."""
        self.config = config
        self.strategy = strategy
        self.actor = actor
        self.tokenizer = tokenizer
        self.experience_maker = experience_maker
        self.run = run
        self.schedule = run.schedule
        self.tracker = run.tracker
        self.policy_update = PolicyUpdate(config=config, strategy=strategy, actor=actor)
        self.settings = run_settings(config, run.train_prompts)
        self.lr_updates = run.schedule.num_updates
        self.kl_controller = make_kl_controller(config.algorithm.init_kl_coef, config.algorithm.kl_target)
        self.guard = Guard()
        self.warned_of_equals = False
        self.evaluator = self._make_evaluator()
        self.best: BestEvaluation | None = None

    def limit_packs(self, tokens: int) -> None:
        """Packs of the policy, for training and for log-probs, hold at most so many tokens."""
        self.policy_update.budget.tokens = tokens
        self.experience_maker.forwards.budget.tokens = tokens

    def fit(self) -> None:
        """Trains from the newest checkpoint, or from the start, to the last step."""
        with run_bar(self.schedule.num_steps, enabled=self.strategy.is_rank_0()) as bar:
            first_step = self.resume()
            if bar is not None:
                bar.resume(first_step)
            self.sync_weights(PhaseTimer())
            if first_step == 0:
                self.measure()
                self.evaluate(step=0)
            start = time.monotonic()
            for step in range(first_step, self.schedule.num_steps):
                metrics = self.train_step(step)
                done = step + 1
                remaining = self.schedule.num_steps - done
                left_s = seconds_left(time.monotonic() - start, done=done - first_step, remaining=remaining)
                self.log_step(done, metrics, left_s=left_s)
                self.warn_without_signal(done, metrics)
                self.evaluate(step=done)
                if self.saves_at(done):
                    with doing("saving"):
                        self.save_checkpoint(done)
                if bar is not None:
                    bar.advance()

    def measure(self) -> None:
        """Logs what the experience maker measures before anything is trained on its rewards."""
        metrics = MeanMetrics()
        prompts = self._share(list(self.run.train_prompts)[:NUM_MEASURED_PROMPTS])
        for name, values in self.experience_maker.measure(prompts).items():
            metrics.add(name, values)
        reduced = metrics.reduce()
        if self.tracker is not None and reduced:
            self.tracker.log(0, "start", reduced)
            logger.info("before training: %s", ", ".join(f"{name} {value:.2g}" for name, value in reduced.items()))

    def train_step(self, step: int) -> dict[str, float]:
        """Rollout `step` and its optimizer steps; returns the metrics over all ranks."""
        timer, metrics = PhaseTimer(), MeanMetrics()
        kl_coef = self.kl_controller.value
        with timer.phase("step"):
            prompts = self._share([self.run.train_prompts[i] for i in self.schedule.batch(step)])
            experiences = self.experience_maker.make_experiences(
                prompts, step=step, kl_coef=kl_coef, timer=timer, metrics=metrics
            )
            with timer.phase("train"):
                num_updates = self.schedule.updates_per_epoch(step)
                self.policy_update.run(
                    experiences, step=step, num_updates=num_updates, kl_coef=kl_coef, metrics=metrics
                )
            if self.config.placement.colocate_actor_ref:
                release_cached_memory()  # the reference workers score next, in processes of their own on these GPUs
            self.sync_weights(timer)
        self.keep_completions(step + 1, experiences)
        reduced = metrics.reduce()
        self.kl_controller.update(reduced.get("kl", 0.0), self.schedule.num_samples(step))
        performance = performance_metrics(experiences, timer) if self.config.tracking.perf else {}
        return {**reduced, "kl_coef": kl_coef, **timer.metrics(), **performance}

    def sync_weights(self, timer: PhaseTimer) -> None:
        """Brings the policy's weights to whatever samples from it."""
        raise NotImplementedError

    def evaluate(self, step: int) -> None:
        """Evaluates after `step` steps, if the run has evaluations and one is due. Collective."""
        every = self.config.evaluation.eval_steps
        if self.evaluator is not None and every > 0 and step % every == 0:
            self.keep_best(step, self.evaluator.run(step))

    def _make_evaluator(self) -> Evaluator | None:
        if self.run.eval_prompts is None:
            return None
        split = list(self.run.eval_prompts)
        share = self._share(split)
        return Evaluator(self.experience_maker, split, share=share, config=self.config, tracker=self.tracker)

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def saves_at(self, done: int) -> bool:
        """Every `save_steps`, and at the end."""
        save_steps = self.config.checkpoint.save_steps
        return save_steps > 0 and (done % save_steps == 0 or done == self.schedule.num_steps)

    def keep_best(self, step: int, metrics: dict[str, float]) -> None:
        """Saves the policy aside where `--save_best` asks for it and no evaluation was better. Collective.

        The evaluation before training counts, but the policy as it came is not saved.
        """
        metric = self.config.checkpoint.save_best
        if metric is None:
            return
        if step == 0 and self.tracker is not None:
            set_aside(Path(self.config.checkpoint.ckpt_path) / BEST_FOLDER)
        better = better_evaluation(self.best, metrics, metric=metric, step=step)
        if better is None:
            return
        before, self.best = self.best, better
        if step > 0 and not self._saved(step, lambda: self._save_state(step, BEST_FOLDER, max_num=1)):
            self.best = before

    def save_checkpoint(self, done: int) -> None:
        checkpoint = self.config.checkpoint

        def save() -> None:
            if not checkpoint.disable_ds_ckpt:
                self._save_state(done, ACTOR_FOLDER, max_num=checkpoint.max_ckpt_num)
            if checkpoint.save_hf_ckpt:
                path = Path(checkpoint.ckpt_path) / f"global_step{done}_hf"
                self.strategy.save_hf_model(self.actor.model, self.tokenizer, path)
                if self.tracker is not None:
                    prune_models(path.parent, max_num=checkpoint.max_ckpt_num)

        self._saved(done, save)

    def _saved(self, done: int, save: Callable[[], None]) -> bool:
        """Whether it could be saved. Raises WriteError where a failed save is to end the run."""
        try:
            save()
        except WriteError as error:
            if self.config.checkpoint.stop_on_failed_save:
                raise
            if self.tracker is not None:
                logger.error("step %d is not saved: %s; training goes on to the next save", done, error)
            return False
        return True

    def _save_state(self, done: int, folder: str, *, max_num: int) -> None:
        """A checkpoint in a folder of `ckpt_path`, of which the newest `max_num` stay."""
        state = TrainState(
            step=done,
            kl_coef=self.kl_controller.value,
            num_updates=self.lr_updates,
            settings=self.settings,
            best=None if self.best is None else asdict(self.best),
        )
        self.strategy.save_checkpoint(
            self.actor.model,
            f"{self.config.checkpoint.ckpt_path}/{folder}",
            f"global_step{done}",
            state.to_dict(),
            tokenizer=self.tokenizer,
            max_num=max_num,
            max_gb=self.config.checkpoint.max_ckpt_mem_gb,
        )

    def resume(self) -> int:
        """Continues from `run.resume_from`, if there is one; returns how many steps are done."""
        if self.run.resume_from is None:
            return 0
        state = self.run.resume_from.state
        self.strategy.load_checkpoint(self.actor.model, self.run.resume_from.checkpoint)
        self.lr_updates = state.num_updates
        self.kl_controller.value = resumed_kl_coef(state, self.settings)
        self.best = resumed_best(state.best, metric=self.config.checkpoint.save_best)
        logger.info("resumed after step %d of %d", state.step, self.schedule.num_steps)
        if self.tracker is not None:
            log_changes(state, self.settings, num_updates=self.schedule.num_updates)
            self.tracker.resume(state.step)
        return state.step

    # ---- the rest ----------------------------------------------------------------------------------------------

    def _share(self, prompts: list[Prompt]) -> list[Prompt]:
        """This rank's prompts; shares differ by one at most, and may be empty."""
        return prompts[self.strategy.rank :: self.strategy.world_size]

    def keep_completions(self, done: int, experiences: Sequence[Experience]) -> None:
        """One prompt's responses of this step, for people to read. Batches are shuffled, so the first will do."""
        keep = self.config.tracking.keep_train_completions
        if self.tracker is not None and keep > 0 and experiences:
            first = ScoredSamples(samples=experiences[0].samples, rewards=experiences[0].rewards)
            self.tracker.log_train_completions(done, completion_rows(first), keep=keep)

    def log_step(self, done: int, metrics: dict[str, float], *, left_s: float | None = None) -> None:
        if self.tracker is not None and done % self.config.tracking.logging_steps == 0:
            self.tracker.log(done, "train", metrics)
            line = metrics_line(f"step {done}/{self.schedule.num_steps}", metrics, left_s=left_s)
            logger.info("%s", line)
            for line in self.guard.lines(metrics, self.tracker.first_row("train") or metrics):
                logger.warning("step %d: %s", done, line)

    def warn_without_signal(self, done: int, metrics: dict[str, float]) -> None:
        """Says so where no group of a step has rewards that differ: with an estimator that compares them, all
        advantages are 0. Once: later on the step's line marks it."""
        compares = self.config.algorithm.advantage_estimator in COMPARED_WITHIN_GROUP
        if self.tracker is not None and compares and metrics.get(EQUAL_REWARDS) == 1.0 and not self.warned_of_equals:
            self.warned_of_equals = True
            logger.warning(
                "step %d: in every group all rewards are equal (mean %.4g), so the rewards teach nothing in this step; "
                "if that stays so, sample more (--n_samples_per_prompt, --temperature) or take a reward with a finer "
                "scale (for VR-CLI --reward_shape nll_delta)",
                done,
                metrics["reward"],
            )
