"""The pure pricing kernel: the only place where amounts are computed. No database, no clock, no network.

terms and timeline (what a subscription owes, and what is due after what was billed) · rules (what a price is) · price (what a quantity
costs, and why) · proration (share of a cycle) · discounts · tax. Around a price: modifiers (of quantities and amounts), compound (prices of
more than one quantity), aggregation (events to a quantity), credits (which prepaid credit pays).
"""
