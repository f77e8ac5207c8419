"""Exact and rigorous mathematics of one formula, on which the claims rest.

constants, samples, balls     numbers: exact, in floats (which only suggest, as the unit of x does), enclosed rigorously
algebra, rational, inverse    formulas simplified, in normal form, solved for x
piece, pieces, isolation      where f changes its formula, also at isolated zeros, and whether f and f' are continuous
half_lines                    where the sign far out begins
series, strengths             the Taylor expansion at 0 and R = |f''(0)/f'(0)|
asymptotics, tails            f and -f' as x goes to plus or minus infinity
infimum                       the least value of a formula, and where it is attained
"""
