"""The pure pricing kernel: the only place where amounts are computed. No database, no clock, no network.

rules (what a price is) · price (what a quantity costs, and why) · proration (share of a cycle) · timeline (what a subscription owes,
and what is due after what was billed) · tax.
"""
