"""From owed amounts to a document that is owed.

models · draft (owed − billed -> lines) · run (many customers in sets) · preview · finalize · void · numbering · statement · document · pdf · queries
"""
