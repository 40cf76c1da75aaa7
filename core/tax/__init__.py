"""Tax on invoices: rates by country and time, and the treatment of a customer.

models · assess (pure) · numbers (tax id checks)
"""
