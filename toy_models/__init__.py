"""Toys in which every expectation is exact: a softmax bandit and a mixture of Gaussians under any preference loss."""

__all__ = ["Bandit", "GaussianMixture", "Preferences", "Trace", "descend"]

from toy_models.bandit import Bandit
from toy_models.descent import Trace, descend
from toy_models.mixture import GaussianMixture
from toy_models.preferences import Preferences
