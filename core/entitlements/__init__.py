"""What a customer may use: features and limits of its plan, limits and spend caps of its own, and what happens past them.

models · windows, bounds (pure) · check, consume (decisions) · evaluate (thresholds, blocks) · limits, caps (changes) · queries
"""
