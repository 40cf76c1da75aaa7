"""Operators and platform keys from the command line: the first ones of a new installation."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

import pyotp

from core import audit, clock
from core.errors import BillingError
from core.identity import keys, users
from core.identity.models import OperatorRole
from core.identity.permissions import Scope
from ops.context import unit_of_work
from ops.home import path_from_environment, read_logins


def create_operator(argv: list[str]) -> int:
    """Make a user of the finance side; the password is asked for, or read from the variable OPERATOR_PASSWORD."""
    parser = argparse.ArgumentParser(prog="valueverse create-operator", description=create_operator.__doc__)
    parser.add_argument("--email", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--role", required=True, choices=[role.value for role in OperatorRole])
    given = parser.parse_args(argv)
    password = os.environ.get("OPERATOR_PASSWORD") or getpass.getpass("Password: ")
    role = OperatorRole(given.role)
    try:
        with unit_of_work() as session:
            users.create(
                session, email=given.email, name=given.name, password=password, actor=audit.SYSTEM, at=clock.now(), operator_role=role
            )
    except BillingError as error:
        return complain(error)
    print(f"{given.email} may sign in at /admin/ as {given.role}.")
    return 0


def create_key(argv: list[str]) -> int:
    """Make a platform API key (for any organization) and print it; it is not shown again."""
    parser = argparse.ArgumentParser(prog="valueverse create-key", description=create_key.__doc__)
    parser.add_argument("--name", default="Command line")
    parser.add_argument("--mode", choices=keys.MODES, default="test")
    parser.add_argument("--scopes", nargs="+", choices=[scope.value for scope in Scope], default=[scope.value for scope in Scope])
    parser.add_argument("--save", type=Path, help="write the key to this file, for our eyes only, instead of printing it")
    given = parser.parse_args(argv)
    try:
        with unit_of_work() as session:
            made = {"organization_id": None, "name": given.name, "mode": given.mode, "scopes": given.scopes}
            _, token = keys.create(session, **made, actor=audit.SYSTEM, at=clock.now())
            if given.save:
                with os.fdopen(os.open(given.save, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                    file.write(token + "\n")
    except BillingError as error:
        return complain(error)
    if not given.save:
        print(token)
    return 0


def demo_code(argv: list[str]) -> int:
    """Print the six digits of the second factor of each demo login, for those without an authenticator at hand."""
    argparse.ArgumentParser(prog="valueverse demo-code", description=demo_code.__doc__).parse_args(argv)
    logins = [login for login in read_logins(path_from_environment()) if "totp_secret" in login]
    for login in logins:
        code = pyotp.TOTP(login["totp_secret"])
        left = code.interval - int(clock.now().timestamp()) % code.interval
        print(f"{login['email']}  {code.at(clock.now())}  ({left} s left)")
    if not logins:
        print(f"There is no demo in {path_from_environment()}.", file=sys.stderr)
    return 0 if logins else 1


def complain(error: BillingError) -> int:
    """Say on standard error what was wrong; exit status 1."""
    print(error, file=sys.stderr)
    for field in getattr(error, "errors", ()):
        print(f"  {field.pointer}: {field.detail}", file=sys.stderr)
    return 1
