"""From a formula to stable array code for torch and numpy.

normal_form, program     pieces of decaying exponentials, and the same as a list of array operations
patches, knees, native   Taylor polynomials where that cancels, tangents where f overflows, kernels of torch's own
lower                    `to_torch` and `to_numpy`
accuracy, check          the error of the code in ulp; numerical tests of a user's own torch function
"""
