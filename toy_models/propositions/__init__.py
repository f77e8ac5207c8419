"""The propositions about policies, one file each: functions that return (numeric, theory).

They are derived and checked for this project; none is a statement of the GPO paper.
"""
