"""What the three sites share, Flask only: authentication, HTMX answers, errors, filters, charts, headers, assets, paging.

Pages import from here and from core; nothing here knows a page.
"""
