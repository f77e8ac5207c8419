"""The analysis of a loss as output: terminal, notebook, JSON, LaTeX, files and figures.

result              `Analysis`, the value that shows itself in a terminal, a notebook, as JSON and as LaTeX
certificate_file    the verdicts with their proofs, for `gpo verify`
tables, plots       several losses side by side; figures
signs               what to tell of a loss that rises at 0
symbolic            R and f'(0) as formulas in the parameters, with the conditions under which they hold
"""
