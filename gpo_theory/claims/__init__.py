"""What is claimed of f. Each function proposes proved, refuted or unknown; `proving` lets the verifier replay it.

totality            total: f is defined on all of R
convexity           convex, strictly_convex
smoothness          strongly_convex, lipschitz, smooth
monotonicity        monotone_decreasing, differentiable_at_zero
lower_bounds        bounded_below
extrema             the least value over pieces with irrational ends
bradley_terry, bayes_consistency   what minimising f recovers
hints, proving      from a proposal to a certificate
"""
