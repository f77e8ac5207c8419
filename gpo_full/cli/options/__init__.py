"""Options that several subcommands have.

parameters   `--param NAME=VALUE`
messages     the library's messages, with its arguments as options
training     those of `gpo train`, and the GPOConfig that they make
export       `--csv`, `--latex` and other files beside the answer
"""
