"""Options that several subcommands have.

parameters   `--param NAME=VALUE`
export       `--csv`, `--latex` and other files beside the answer
"""
