"""From rows of text to token ids.

columns         which columns are read, what the data calls them, which may hold the prompt
arrow_tables    the rows of Parquet files and of tables in memory
file_formats    the rows of files of JSON and CSV, and which suffix means which format
sources         what the user names: a file, a folder, a split, a table, or a data set on the hub
exchanges       what a row means: a prompt and two responses, texts or messages, checked
tokenization    a prompt and two responses become token ids; chat template, truncation
pairs           the value `Pair`, its weight, p and reference log-probabilities, and the reader of a whole data set
pairs_on_disk   tokenized pairs that stay on disk, memory-mapped
tensor_files    safetensors files larger than memory
split           held-out pairs by the value of a column
"""
