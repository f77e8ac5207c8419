"""The verifier: replays every proof in mpmath's intervals and in rationals, and imports nothing of the provers.

A proof is a list of inequalities g >= 0 on intervals; a certificate holds a hint for each. Only this folder and the
language of formulas (`formula`, `grammar`) have to be trusted.

intervals, sturm, horizon                                   bounds of a formula on an interval, exact signs, half-lines
expansion                                                   a formula multiplied out, and what cancels
inequality                                                  one inequality, replayed from its hint
zeros                                                       breakpoints that are isolated zeros, such as log(9)
resolution, statement, units                                f as smooth parts, what all rules work with, units of x
waves                                                       a formula along whole periods of its sines and cosines
domain, shape, size, slope, floor, exactness, consistency   the rules, one file for a group of claims
rules, certificates                                         the table of rules, and the replay of a certificate
"""

__all__ = ["replay", "seal", "verify"]

from gpo_theory.kernel.certificates import replay, seal, verify
