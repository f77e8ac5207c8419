"""The formula of a loss: read from text, held as a tree, printed.

operations   the functions of the grammar in one table: derivative, definition, number of arguments, LaTeX
expression   the tree: built with + - * / **, differentiated, printed as text; `fold` and `substitute` walk it
grammar      text to tree, by a closed grammar that never runs text
typeset      tree to LaTeX

A new function is one entry of `operations.OPERATIONS`. If it is defined by others, nothing else is needed. A new
primitive also needs an expansion in `calculus/asymptotics.py`, a case in `lowering/` and bounds in `kernel/`.
`tests/gpo_theory/formula/test_operations.py` tests every entry against mpmath. The book's explorer has a copy of the
grammar in JavaScript (`gpo_full/book/explorer/formula.js`).
"""
