"""How fast a loss learns from one pair.

flow         the gradient flow x' = -f'(x), x(0) = 0
reversals    where f' changes sign, and how far from 0 f stays convex
"""
