"""Messages of the library in the words of the command line: an argument of a function is an option of `gpo`."""

__all__ = ["with_options"]

import re
import shlex

# What a message has between backticks: NAME=VALUE, the value a word, a number, a quoted text or one entry of a dict.
_ARGUMENT = re.compile(r"`(\w+)=(?:'([^`']*)'|\{'(\w+)': '([^`']*)'\}|([^`'{]*))`")
_OPTION = {"parameters": "param"}  # where the option has another name than the argument


def with_options(message: str) -> str:
    """Return a message with every argument that it names, as in `mean_length=N`, as the option --mean-length N.

    An argument that is None is named without a value.

    >>> with_options("give `mean_length=N`; `loss=None`; as `by='target'` does; as in `parameters={'tau': '0.1'}`")
    'give --mean-length N; --loss; as --by target does; as in --param tau=0.1'
    """

    def option(found: re.Match[str]) -> str:
        name, quoted, key, entry, plain = found.groups()
        value = f"{key}={entry}" if key else quoted if quoted is not None else plain
        return f"--{_OPTION.get(name, name).replace('_', '-')}" + ("" if value == "None" else f" {shlex.quote(value)}")

    return _ARGUMENT.sub(option, message)
