"""A payment provider of our own: a separate process that speaks Stripe's HTTP for what the product uses.

Its append-only SQLite file is the independent record of what was really charged; tests compare the product against it.
It is written from the provider's public documentation and shares no code with the product.
"""
