"""The policy loss and the KL estimators against numbers worked out by hand."""

import math

import pytest
import torch

from openrlhf.models.loss import PolicyLossInputs, estimate_kl, policy_loss


def inputs(ratios, advantages, samples, *, ref_log_ratios=None):
    """Log-probs with the given ratios to the old policy, and log ratios to the reference."""
    logprobs = torch.full((len(ratios),), -1.0, requires_grad=True)
    old_logprobs = -1.0 - torch.tensor(ratios).log()
    ref_logprobs = None if ref_log_ratios is None else -1.0 - torch.tensor(ref_log_ratios)
    return PolicyLossInputs(
        logprobs=logprobs,
        old_logprobs=old_logprobs,
        advantages=torch.tensor(advantages),
        label_samples=torch.tensor(samples),
        num_samples=max(samples) + 1,
        ref_logprobs=ref_logprobs,
    )


@pytest.mark.parametrize(("estimator", "expected"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 1 + 0.5)])
def test_kl_estimators_at_half_a_nat(estimator, expected):
    assert estimate_kl(torch.tensor([0.5]), estimator).item() == pytest.approx(expected, abs=1e-6)


def test_clipped_surrogate():
    # sample 0: ratio 1.5, advantage 2  -> min(3.0, 1.2 * 2 = 2.4) = 2.4, clipped; ratio 1.1, advantage 2 -> 2.2
    #           mean over its two tokens: -(2.4 + 2.2) / 2 = -2.3
    # sample 1: ratio 0.5, advantage -1 -> min(-0.5, 0.8 * -1 = -0.8) = -0.8, clipped: loss +0.8
    # sample 2: ratio 1.5, advantage -1 -> min(-1.5, -1.2) = -1.5, not clipped: loss +1.5
    output = policy_loss(
        inputs([1.5, 1.1, 0.5, 1.5], [2.0, 2.0, -1.0, -1.0], [0, 0, 1, 2]),
        eps_clip=0.2, kl_coef=0.0, kl_estimator="k1",
    )  # fmt: skip
    assert output.loss_sum.item() == pytest.approx(-2.3 + 0.8 + 1.5, abs=1e-5)
    assert output.metric_sums["policy_loss"] == pytest.approx(0.0, abs=1e-5)
    # clipped tokens: half of sample 0's, all of sample 1's, none of sample 2's
    assert output.metric_sums["clip_frac"] == pytest.approx(0.5 + 1.0 + 0.0)
    assert output.metric_sums["ratio"] == pytest.approx(1.3 + 0.5 + 1.5, abs=1e-5)


def test_gradient_is_zero_where_clipped_and_minus_advantage_times_ratio_elsewhere():
    given = inputs([1.5, 0.9], [1.0, 1.0], [0, 1])
    policy_loss(given, eps_clip=0.2, kl_coef=0.0, kl_estimator="k1").loss_sum.backward()
    assert given.logprobs.grad.tolist() == pytest.approx([0.0, -0.9], abs=1e-6)


def test_kl_term_is_added_per_token():
    # ratio 1 and advantage 0 leave the KL alone: k3 at d = ln 2 is 1/2 - 1 + ln 2; one of the two tokens has d = 0
    k3 = 0.5 - 1 + math.log(2)
    given = inputs([1.0, 1.0], [0.0, 0.0], [0, 0], ref_log_ratios=[math.log(2), 0.0])
    output = policy_loss(given, eps_clip=0.2, kl_coef=0.1, kl_estimator="k3")
    assert output.loss_sum.item() == pytest.approx(0.1 * k3 / 2, abs=1e-6)
    assert output.metric_sums["kl_loss"] == pytest.approx(k3 / 2, abs=1e-6)


@pytest.mark.parametrize("advantage", [0.0, 1.0, -1.0])
@pytest.mark.parametrize(("log_ratio", "ref_log_ratio"), [(200.0, 200.0), (-200.0, -200.0), (-200.0, 200.0)])
def test_log_ratios_beyond_exp_stay_finite_and_are_counted(log_ratio, ref_log_ratio, advantage):
    """exp(200) is infinite in fp32, and 0 times that is not a number."""
    logprobs = torch.tensor([-1.0, -1.0], requires_grad=True)
    given = PolicyLossInputs(
        logprobs=logprobs, old_logprobs=torch.tensor([-1.0, -1.0 - log_ratio]),
        ref_logprobs=torch.tensor([-1.0, -1.0 - ref_log_ratio]), advantages=torch.full((2,), advantage),
        label_samples=torch.tensor([0, 0]), num_samples=1,
    )  # fmt: skip
    output = policy_loss(given, eps_clip=0.2, kl_coef=1e-6, kl_estimator="k3")
    output.loss_sum.backward()
    assert math.isfinite(output.loss_sum.item())
    assert logprobs.grad is not None
    assert logprobs.grad.isfinite().all()
    assert all(math.isfinite(value) for value in output.metric_sums.values())
    # the second of two tokens; where neither exponent is large, nothing is clamped
    clamped = log_ratio > 0 or ref_log_ratio < 0
    assert output.metric_sums["log_ratio_clamped_frac"] == (0.5 if clamped else 0.0)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_of_an_ordinary_log_ratio_is_not_clamped(estimator):
    d = -20.0
    expected = {"k1": d, "k2": 200.0, "k3": math.exp(20.0) - 1 + d}[estimator]
    log_ratio = torch.tensor([d], requires_grad=True)
    kl = estimate_kl(log_ratio, estimator)
    kl.backward()
    assert kl.item() == pytest.approx(expected, rel=1e-6)
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == pytest.approx({"k1": 1.0, "k2": d, "k3": 1 - math.exp(20.0)}[estimator], rel=1e-6)


def test_no_samples_give_zero_with_a_gradient():
    none = torch.zeros(0, requires_grad=True)
    given = PolicyLossInputs(
        logprobs=none, old_logprobs=none.detach(), advantages=none.detach(),
        label_samples=torch.zeros(0, dtype=torch.long), num_samples=0, ref_logprobs=none.detach(),
    )  # fmt: skip
    output = policy_loss(given, eps_clip=0.2, kl_coef=0.1, kl_estimator="k3")
    output.loss_sum.backward()
    assert output.loss_sum.item() == 0.0
