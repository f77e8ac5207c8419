"""The formula of a loss: text, tree, text.

expression   the tree: built, differentiated, evaluated
grammar      text to tree, by a closed grammar that runs no text
typeset      tree to LaTeX
"""
