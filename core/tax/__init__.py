"""Tax on invoices: rates by country and time, and the treatment of a customer.

models · rates (the standard rates, seeded) · assess (pure) · numbers (tax id checks)
"""
