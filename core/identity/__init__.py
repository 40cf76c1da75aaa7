"""Who may do what: organizations (the tenants), users and their memberships, sessions, API keys, test clocks.

models · permissions (pure) · passwords · sessions · keys · organizations · queries
"""
