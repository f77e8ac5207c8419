"""The command `gpo`.

entry        finds the subcommand, parses, and turns errors into one line and an exit code
commands/    one file a subcommand
options/     options that several subcommands have
completion   completion at the TAB key
"""
