"""Toy models in which every expectation is exact: a softmax bandit and a mixture of Gaussians under any loss.

bandit, mixture         the two policies, each with its reference and the law of its pairs
preferences             the matrix P(response i is preferred to response j)
objectives              KL, offline regulariser and population GPO loss, over responses and pairs
descent                 gradient descent and gradient flow, many configurations at once
optima, quadrature      the population optimum in closed form; the error of a mixture's quadrature
inputs, plots           numbers and probabilities that a user gives, checked; figures
propositions/           P9 to P14, each as a function that returns (numeric, theory)
"""

__all__ = ["Bandit", "GaussianMixture", "Preferences", "Trace", "descend"]

from toy_models.bandit import Bandit
from toy_models.descent import Trace, descend
from toy_models.mixture import GaussianMixture
from toy_models.preferences import Preferences
