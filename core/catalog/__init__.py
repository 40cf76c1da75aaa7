"""What is sold: subscription plans, their immutable versions, pricing rules.

models · plan_document (reads and checks a plan as it is written; pure) · publish (create a version) · queries
draft_models, draft_document, drafts (versions people still write on) · calculator (what prices come to; pure)
"""
