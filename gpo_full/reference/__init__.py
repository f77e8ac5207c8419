"""The reference policy's log-probabilities, computed once.

compute    one pass over the pairs, in parts that several processes share
store      kept on disk under the hash of weights and pairs
from_data  taken from the data instead
"""
