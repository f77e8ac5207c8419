"""Numerical tests of a user's own torch function: whether it computes a preference loss.

margins       the margins at which it is called
calling       its calls, and what a test found
conduct       its tests as torch code: shapes, batches, memory, state, upstream gradients
dtypes        its tests in each dtype
properties    its tests without a formula: gradient, slope at 0, convexity, consistency
comparison    its tests against a formula
check         which tests run, and the report of what they found
"""
