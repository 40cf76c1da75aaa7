"""Commands for operators: the local stack, migrations, the mail catcher and the `valueverse` command."""
