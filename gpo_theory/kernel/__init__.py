"""The verifier: replays every proof in mpmath's intervals and in rationals, and imports nothing of the provers.

A proof is a list of inequalities g >= 0 on intervals; a certificate holds a hint for each. What is trusted is this
folder and the language of formulas (`formula`, `grammar`), no more.
"""

__all__ = ["replay", "seal", "verify"]

from gpo_theory.kernel.certificates import replay, seal, verify
