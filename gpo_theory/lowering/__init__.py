"""From a formula to stable array code for torch and numpy.

normal_form     the formula on each piece with decaying exponentials only
program         the normal form as a list of array operations
cancellation    Taylor polynomials near the points where the normal form cancels
knees           the points beyond which the tangent continues f, because f would overflow
native          torch's own kernels, for the losses that are one of them
lower           `to_torch` and `to_numpy`
accuracy        the error of the code in ulp
check           numerical tests of a user's own torch function: which run, and what they found
calling         calls of that function, and a finding
margins         the margins at which it is tested
conduct         its tests as torch code: shapes, batches, memory, state, upstream gradients
dtypes          its tests in each dtype
comparison      its tests against a formula
properties      its tests without one: gradient, slope at 0, convexity, consistency
"""
