"""The propositions about a loss alone, one file each: functions that return (numeric, theory).

P1 to P8 and P15 to P19 are here, P9 to P14 in `toy_models.propositions`. They are derived and checked for this
project; none is a statement of the GPO paper.
"""
