"""The pure pricing kernel: the only place where amounts are computed. No database, no clock, no network.

terms, segments, timeline (what a subscription owes, and what is due after what was billed) · rules, price (models of one quantity, and what
it costs) · models, charge (every price of the vocabulary from its JSON, and what its usage costs and why) · compound, usage (models of
several quantities, and what they are asked with) · modifiers (around a price) · spend (prices of what other prices come to) · proration
(share of a cycle) · discounts · tax · aggregation (events to a quantity) · credits (which prepaid credit pays) · replay.
"""
