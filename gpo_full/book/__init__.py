"""The static book: `gpo reproduce`.

reproduce                      the main job: experiment, lessons, book, results.json
book                           pages from executed lessons, without a network
ledger, prose, claim_review, ledger_page   every claim of the texts beside what shows it
loss_pages, api_pages, gallery, explorer_page, student_export   generated pages and notebooks
templates                      the generated pages' texts, from `notebooks/pages`
"""
