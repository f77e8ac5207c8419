"""Choosing a beta and a loss.

pair_weights        the beta at which the mean weight of a run's pairs has a value
matching            the beta of one loss that is equivalent to a known beta of another: `match_beta`
wishes, families    the properties that may be wished of a loss, and the losses that are searched for them
design              a loss that is proved to have the wished properties, or the reason why there is none
"""
