"""Who is there and what they may do: organizations, users and their roles, sign-in sessions, API keys, test clocks.

Every secret is kept as a hash or encrypted; every tenant's row is reached through `queries` with the tenant's id.
"""
