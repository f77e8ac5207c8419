"""From rows of text to token ids.

files, hub           rows of JSONL, CSV and Parquet files; folders and sets of the `datasets` library
pairs, numbers       a row becomes a `Pair` of token ids, with the weight, p and reference that it may state
split                held-out pairs by the value of a column
table, tensor_stream   tokenised pairs that stay on disk, memory-mapped
"""
