"""What a customer may use: features and limits of its plan, limits and spend caps of its own, and what happens past them.

models · facts (what decides) · bounds (limits and windows, pure) · counters · together (both in one statement) ·
check, reserve (decisions) · standing, evaluate (thresholds, blocks) · watch (whom to look at) · limits (changes) · wording
"""
