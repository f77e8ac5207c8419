"""The formula of a loss: read from text, held as a tree, printed.

operations   the functions of the grammar in one table: derivative, definition, number of arguments, LaTeX
expression   the tree: built with + - * / **, differentiated, printed as text; `fold` and `substitute` walk it
spelling     other spellings with one certain meaning: ^, bars, relu, np.log, copied characters
grammar      text to tree, by a closed grammar that never runs text
slips        what is no formula, such as LaTeX: the reason, and the text to write instead
typeset      tree to LaTeX

A new function is one entry of `operations.OPERATIONS`. If it is defined by others, nothing else is needed. A new
primitive also needs an expansion in `calculus/asymptotics.py`, a case in `lowering/` and bounds in `kernel/`.
`tests/gpo_theory/formula/test_operations.py` tests every entry against mpmath. The book's explorer has a copy of the
grammar in JavaScript (`gpo_full/book/explorer/formula.js`), and reads the tables of `spelling` as they are. A new
spelling is one line there.
"""
