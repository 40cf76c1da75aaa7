"""What is sold: subscription plans, their immutable versions, pricing rules.

models · publish (create a version, check its prices) · queries
"""
