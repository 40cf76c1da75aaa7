"""The double-entry ledger: balanced, append-only.

models · accounts (the chart) · post · queries
"""
