"""What is claimed of f, one file a claim: each proposes proved, refuted or unknown.

totality                                   is f defined on all of R?
convexity, smoothness, monotonicity        from the signs and bounds of f' and f''
lower_bounds                               is f bounded below, and by what?
bradley_terry, bayes_consistency           what minimising f recovers
hints, proving                             from a proposal to a certificate that the verifier has replayed
"""
