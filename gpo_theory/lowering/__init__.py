"""From a formula to stable array code for torch and numpy.

normal_form      the formula on each piece with decaying exponentials only
derivatives      the derivative of a normal form, with its rational part reduced
program          a normal form as a list of array operations, and these of numpy and torch
exact_values     exact values of f and its derivatives, and the points at which code is measured against them
cancellation     Taylor polynomials near the points where code cancels
accurate_code    the program of f or of a derivative: of some forms the one that is measured to be accurate
knees            the points beyond which the tangent continues f, because f would overflow
autograd, lower  f and two derivatives as one torch function; `to_torch` and `to_numpy`
accuracy         the error of the code in ulp
"""
