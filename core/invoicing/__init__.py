"""From owed amounts to a document that is owed.

Owed: rating (timelines + usage − billed) · billed · lines · statement, statements (one view of it everywhere)
Drafts: draft · claim · contents · taxes · run · run_errors · review · manual · preview · quote · whatif
Prices for many: simulation · simulation_results (other prices on past usage) · plan_moves, plan_move_preview, plan_move_results
  (many subscriptions to another version)
Issued: finalize · numbering · frozen (content and hash) · account_credits · settle · void · document, documents, pdf · queries · models
"""
