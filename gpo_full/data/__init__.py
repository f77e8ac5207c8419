"""From rows of text to token ids.

sources         what the user names: a file, a folder, or a data set on the hub
file_formats    the rows of JSONL, CSV and Parquet files
tokenization    one row's texts or chat messages become token ids; chat template, truncation
pairs           the value `Pair`, its weight, p and reference log-probabilities, and the reader of a whole data set
pairs_on_disk   tokenized pairs that stay on disk, memory-mapped
tensor_files    safetensors files larger than memory
split           held-out pairs by the value of a column
"""
