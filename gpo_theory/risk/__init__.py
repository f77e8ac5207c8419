"""The conditional risk C_p(x) = p f(x) + (1 - p) f(-x), and what minimises it.

links        the link x*(p) = argmin C_p
regimes      x*(p) in closed form: which piece of f it lies on, for which p
probability  what a margin says about the label: the p at which it minimises C_p
transfer     the weight f'(beta rho)/f'(0) of a pair at a margin
psi          the psi-transform: the excess risk that a wrong decision costs at least
conjugate    the Fenchel conjugate f*
"""
