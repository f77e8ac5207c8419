"""Which beta, and which loss.

matching            the beta at which another loss does the same: `match_beta`
wishes, families    what may be wished of a loss, and the losses among which it is searched
design              from wishes to a loss that is proved to have them, or to the reason why there is none
"""
