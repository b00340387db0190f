"""The KL coefficient: fixed, or steered towards a target (Ziegler et al. 2019, section 2.2)."""

from __future__ import annotations


class FixedKLController:
    def __init__(self, coefficient: float) -> None:
        self.value = coefficient

    def update(self, current_kl: float, num_samples: int) -> None:
        """Nothing to steer."""


class AdaptiveKLController:
    """Raises the coefficient while the measured KL is above the target, lowers it below: 20 % per horizon at most."""

    def __init__(self, coefficient: float, target: float, horizon: int = 10_000) -> None:
        self.value = coefficient
        self.target = target
        self.horizon = horizon

    def update(self, current_kl: float, num_samples: int) -> None:
        """`current_kl` per response token, `num_samples` since the last call."""
        error = min(max(current_kl / self.target - 1, -0.2), 0.2)
        self.value *= 1 + error * num_samples / self.horizon


KLController = FixedKLController | AdaptiveKLController


def make_kl_controller(coefficient: float, target: float | None) -> KLController:
    return FixedKLController(coefficient) if target is None else AdaptiveKLController(coefficient, target)
