"""Data order, and how a rollout is cut into optimizer steps and micro-batches."""

import torch

from openrlhf.datasets.sampler import RolloutSchedule
from openrlhf.models.loss import PolicyLossInputs, policy_loss
from openrlhf.trainer.ppo_utils.replay_buffer import ReplayBuffer
from openrlhf.trainer.ppo_utils.samples import Completion, Experience, Prompt, Rewards, Samples


def schedule(**changes) -> RolloutSchedule:
    return RolloutSchedule(**({"num_prompts": 5, "rollout_batch_size": 2, "num_episodes": 3, "seed": 1} | changes))


def test_an_episode_takes_every_prompt_once():
    plan = schedule()
    assert plan.steps_per_episode == 3
    assert plan.num_steps == 9
    for episode in range(3):
        batches = [plan.batch(3 * episode + i) for i in range(3)]
        assert [len(batch) for batch in batches] == [2, 2, 1]
        assert [plan.batch_size(3 * episode + i) for i in range(3)] == [2, 2, 1]
        assert sorted(prompt for batch in batches for prompt in batch) == [0, 1, 2, 3, 4]


def test_order_depends_on_seed_and_episode_alone():
    assert [schedule().batch(i) for i in range(9)] == [schedule().batch(i) for i in range(9)]
    assert [schedule().batch(i) for i in range(3)] != [schedule().batch(i) for i in range(3, 6)]
    assert [schedule().batch(i) for i in range(9)] != [schedule(seed=2).batch(i) for i in range(9)]
    assert schedule(num_episodes=9).batch(4) == schedule().batch(4)


def test_number_of_optimizer_steps():
    # batches of 2, 2, 1 prompts x 4 samples = 8, 8, 4 samples; in steps of 4: 2 + 2 + 1, 3 episodes, 2 epochs
    assert schedule(samples_per_prompt=4, train_batch_size=4, max_epochs=2).num_updates == 30


def experience(prompt_tokens: list[int], responses: list[list[int]]) -> Experience:
    completions = [Completion(token_ids=r, logprobs=[0.0] * len(r), finish_reason="stop") for r in responses]
    generator = torch.Generator().manual_seed(len(prompt_tokens))

    def values() -> list[torch.Tensor]:
        return [torch.randn(len(r), generator=generator) for r in responses]

    return Experience(
        samples=Samples(
            prompt=Prompt(index=0, text="", token_ids=prompt_tokens),
            completions=completions,
            responses=[""] * len(responses),
        ),
        rewards=Rewards(rewards=[0.0] * len(responses)),
        old_logprobs=values(),
        ref_logprobs=values(),
        advantages=values(),
    )


def buffer() -> ReplayBuffer:
    return ReplayBuffer([experience([1, 2, 3], [[4, 5], [6], [7, 8, 9]]), experience([1, 2], [[5, 6], [6, 6, 6], [4]])])


def test_updates_cover_every_sample_once_and_keep_groups_together():
    updates = buffer().updates(2, seed=0)
    assert sorted(sample for update in updates for sample in update) == [(e, s) for e in (0, 1) for s in (0, 1, 2)]
    assert [len({e for e, _ in update}) for update in updates] == [1, 1]


def test_more_updates_than_samples_leave_some_empty():
    updates = ReplayBuffer([experience([1, 2], [[3]])]).updates(3, seed=0)
    assert sorted(map(len, updates)) == [0, 0, 1]


def test_micro_batches_carry_each_label_its_own_targets():
    replay = buffer()
    for max_tokens in (100, 6, 1):
        batches = replay.micro_batches([(1, 1), (0, 2), (1, 0)], max_tokens=max_tokens)
        first = batches[0]
        assert first.batch.labels.tolist()[:3] == [6, 6, 6]
        torch.testing.assert_close(first.advantages[:3], replay.experiences[1].advantages[1])
        last = batches[-1]
        assert last.batch.labels.tolist() == [7, 8, 9]
        torch.testing.assert_close(last.old_logprobs, replay.experiences[0].old_logprobs[2])
        expected = replay.experiences[0].ref_logprobs
        assert last.ref_logprobs is not None
        assert expected is not None
        torch.testing.assert_close(last.ref_logprobs, expected[2])
        assert sum(b.batch.num_samples for b in batches) == 3


def test_the_loss_of_one_batch_is_the_sum_over_any_micro_batches():
    replay = buffer()
    samples = [(e, s) for e in (0, 1) for s in (0, 1, 2)]

    def total(max_tokens: int) -> float:
        result = 0.0
        for micro in replay.micro_batches(samples, max_tokens=max_tokens):
            given = PolicyLossInputs(
                logprobs=micro.old_logprobs + 0.1 * micro.batch.labels,
                old_logprobs=micro.old_logprobs,
                advantages=micro.advantages,
                label_samples=micro.batch.label_samples,
                num_samples=micro.batch.num_samples,
                ref_logprobs=micro.ref_logprobs,
            )
            result += policy_loss(given, eps_clip=0.2, kl_coef=0.1, kl_estimator="k2").loss_sum.item()
        return result

    assert abs(total(1000) - total(1)) < 1e-5
