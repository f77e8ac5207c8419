"""Exact and rigorous mathematics of one formula, on which the claims rest.

constants, samples, balls          numbers: exact, in floats (they only suggest), enclosed rigorously
algebra, rational, inverse         formulas simplified, in normal form, solved for x
pieces, breakpoints                where f changes its formula, and what happens there
series, strengths                  the Taylor expansion at 0 and R = |f''(0)/f'(0)|
asymptotics, tails                 f and -f' as x goes to plus or minus infinity
hints, extremes, infimum           the least value of a formula, and what the verifier needs to be told
"""
