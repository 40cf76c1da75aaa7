"""The whole product on this machine: `make run`. Ctrl-C stops it; data, secrets and ports stay in the home.

Servers named by DATABASE_URL, REDIS_URL, SMTP_URL or STRIPE_API_BASE/STRIPE_API_KEY are used as they are; those that are not
named are started here. On the first start `ops.demo.load(settings, progress)` fills the database; it leaves its logins with
`ops.home.save_logins`, and may be called again after it was cut off.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from core.config import SELLER_VARIABLES, VARIABLES, ConfigurationError, Settings
from ops import leash, postgres, valkey
from ops.home import ROOT, Home, HomeError, path_from_environment, read_logins
from ops.supervisor import Service, StartError, Stopped, Supervisor, end_leftovers, python

EDGE, MACHINERY, OUTSIDE, DATA = range(4)  # stages of stopping: requests first, data last
HOST = "127.0.0.1"
DATABASE_SECONDS_MAX = 120.0  # recovery after a crash reads the log back
READY_SECONDS_MAX = 300.0  # a busy machine takes its time; a crash is told at once
WEBHOOK_PATH = "/api/v1/webhooks/stripe"
WORKER_PROCESSES, WORKER_THREADS = "1", "8"


@dataclass
class Stack:
    """One copy of the product: its home, its settings, its processes."""

    home: Home
    ports: dict[str, int]
    environment: dict[str, str]
    supervisor: Supervisor
    cluster: postgres.Cluster | None = None
    began: float = field(default_factory=time.monotonic)

    def bring_up(self, *, demo: bool) -> None:
        """Start everything in order and return once the product is ready."""
        self.start_servers()
        if not postgres.schema_is_newest(self.environment["DATABASE_URL"]):
            self.supervisor.say("bringing the database to the newest schema")
            if self.supervisor.run(python("-m", "ops.migrate")) != 0:
                raise StartError("the migration failed; nothing was changed")
        if self.cluster is not None:
            self.make_key()
            if demo:
                self.load_demo()
        web, aggregator, *others = self.product()
        self.supervisor.start(web)
        self.supervisor.start(aggregator)
        address = f"{self.url('web')}/readyz"
        self.supervisor.until(lambda: answers(address), READY_SECONDS_MAX, f"the web server ({address})", web)
        for service in others:  # they start while somebody reads the first page; on two cores they would keep it waiting
            self.supervisor.start(service)
        local = {"mail catcher": "mail", "provider fake": "provider"}
        urls = {local[service.name]: self.url(local[service.name]) for service in self.supervisor.services if service.name in local}
        self.home.save(ready=True, urls={"web": self.url("web"), **urls}, environment=self.product_settings())

    def product_settings(self) -> dict[str, str]:
        """The part of the environment that another command needs to work on this copy."""
        ours = {variable for variable, _ in VARIABLES.values()} | set(SELLER_VARIABLES.values())
        return {name: value for name, value in self.environment.items() if name in ours}

    def start_servers(self) -> None:
        """PostgreSQL, Valkey, the mail catcher and the payment provider's fake, as far as no real one is named."""
        run = self.supervisor
        if self.cluster is not None:
            run.say("starting PostgreSQL 18")
            self.cluster.create()
            self.cluster.recover()
            database = Service("postgres", self.cluster.arguments(), DATA, signal.SIGINT, grace=60.0, leashed=True)
            run.start(database)
            run.until(self.cluster.answers, DATABASE_SECONDS_MAX, "PostgreSQL", database)
            self.cluster.ensure_database()
        for service in outside(self.home, self.ports, self.environment):
            run.say(f"starting {service.name}")
            run.start(service)
            if service.name == "valkey":
                run.until(lambda: valkey.answers(self.ports["valkey"]), DATABASE_SECONDS_MAX, "Valkey", service)

    def product(self) -> list[Service]:
        """The product's own processes."""
        web = self.environment
        granian = ["-m", "granian", "--interface", "rsgi", "--factory", "wsgi:serve", "--host", web["WEB_HOST"], "--port", web["PORT"]]
        size = ["--workers", web["WEB_WORKERS"], "--backlog", "1024", "--workers-kill-timeout", "10"]
        actors = ["-m", "dramatiq", "workers", "--processes", WORKER_PROCESSES, "--threads", WORKER_THREADS]
        return [
            Service("web", python(*granian, *size), EDGE),
            Service("aggregator", python("-m", "workers.aggregator"), MACHINERY),
            Service("workers", python(*actors), MACHINERY),
            Service("scheduler", python("-m", "workers.clock"), MACHINERY),
        ]

    def make_key(self) -> None:
        """A platform key for trying the API, made once; it stays in a file that only we may read."""
        path = self.home.path / "api-key"
        if not path.exists() and self.supervisor.run(python("-m", "ops.cli", "create-key", "--name", "Local key", "--save", path)) != 0:
            raise StartError("the first API key could not be made")

    def load_demo(self) -> None:
        """Fill the database on the first start; a load that was cut off is taken up again."""
        if self.home.state.get("demo") or importlib.util.find_spec("ops.demo") is None:
            return
        self.supervisor.say("loading the demo (first start only)")
        if self.supervisor.run(python("-m", "ops.cli", "demo")) != 0:
            raise StartError("the demo could not be loaded")
        self.home.save(demo=True)

    def url(self, name: str) -> str:
        """Address of the site `name` for a browser on this machine."""
        return f"http://{HOST}:{self.ports[name]}"

    def greet(self) -> None:
        """Print where everything is and who may sign in."""
        web = self.environment["PUBLIC_URL"]
        lines = [("Customer portal", f"{web}/portal/"), ("Finance admin", f"{web}/admin/"), ("API reference", f"{web}/api/v1/docs")]
        if "mail" in self.home.state["urls"]:
            lines.append(("Mails sent", self.url("mail")))
        print(f"\nValueVerse Billing is ready ({time.monotonic() - self.began:.1f} s). Ctrl-C stops it.\n")
        for name, address in lines:
            print(f"  {name:<18}{address}")
        logins = read_logins(self.home.path)
        if logins:
            print("\n  Demo logins")
        for login in logins:
            print(f"  {login['who']:<18}{login['email']}  {login['password']}  {web}{login['path']}")
        if any("totp_secret" in login for login in logins):
            print("  Codes of the second factor: bin/valueverse demo-code")
        if self.cluster is not None:
            print(f"\n  Platform API key  {(self.home.path / 'api-key').read_text(encoding='utf-8').strip()}")
        print(f"\n  Logs, data         {self.home.path}\n", flush=True)

    def remember(self) -> None:
        """Write down what runs, so that the next start can end what a killed supervisor left."""
        self.home.save(pid=os.getpid(), processes=self.supervisor.identities())


def outside(home: Home, ports: dict[str, int], environment: dict[str, str]) -> list[Service]:
    """The servers around the product that its settings place on this machine."""
    data = postgres.data_folder(home.path)
    found = []
    if environment["REDIS_URL"] == valkey.url(ports["valkey"]):
        folder = data / "valkey"
        folder.mkdir(exist_ok=True, mode=0o700)
        found.append(Service("valkey", valkey.arguments(folder, ports["valkey"]), DATA, leashed=True))
    if environment["SMTP_URL"] == f"smtp://{HOST}:{ports['smtp']}":
        words = ["--smtp-port", str(ports["smtp"]), "--web-port", str(ports["mail"]), "--folder", str(home.path / "mail")]
        found.append(Service("mail catcher", python("-m", "ops.mailcatcher", *words), OUTSIDE))
    if environment["STRIPE_API_BASE"] == f"http://{HOST}:{ports['provider']}":
        target = ("--webhook-url", f"http://{HOST}:{ports['web']}{WEBHOOK_PATH}", "--webhook-secret", environment["STRIPE_WEBHOOK_SECRETS"])
        words = ["--port", str(ports["provider"]), "--data", str(home.path / "provider.sqlite"), *target]
        found.append(Service("provider fake", python("-m", "tests.fakes.provider", *words), OUTSIDE))
    return found


def local_cluster(home: Home, ports: dict[str, int]) -> postgres.Cluster:
    """The PostgreSQL of this home."""
    folder = postgres.data_folder(home.path) / "postgres"
    return postgres.Cluster(folder, ports["postgres"], home.secrets()["POSTGRES_PASSWORD"], postgres.durable())


def settings(home: Home, ports: dict[str, int], given: dict[str, str]) -> dict[str, str]:
    """The environment of the product's processes: what is given wins over this home's own servers and secrets.

    In production nothing is made up: what is not given is missing, and the product says so.
    """
    fixed = {"VALUEVERSE_HOME": str(home.path), "PORT": str(ports["web"]), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    named = {name: value for name, value in given.items() if value}
    defaults = {
        "WEB_HOST": HOST,
        "WEB_WORKERS": "1",
        "WEB_THREADS": "16",
        "DATABASE_URL": "",
        "REDIS_URL": "",
        "SMTP_URL": "",
        "STRIPE_API_BASE": "https://api.stripe.com",
    }
    if given.get("VALUEVERSE_ENV") == "production":
        return {**defaults, **named, **fixed}
    own = home.secrets()
    local = {
        "VALUEVERSE_ENV": "development",
        "DATABASE_URL": local_cluster(home, ports).url(),
        "REDIS_URL": valkey.url(ports["valkey"]),
        "SMTP_URL": f"smtp://{HOST}:{ports['smtp']}",
        "PUBLIC_URL": f"http://{HOST}:{ports['web']}",
        **{name: own[name] for name in ("SECRET_KEY", "API_KEY_PEPPER", "ENCRYPTION_KEY")},
    }
    if not named.get("STRIPE_API_KEY"):
        local |= {name: own[name] for name in ("STRIPE_API_KEY", "STRIPE_PUBLISHABLE_KEY", "STRIPE_WEBHOOK_SECRETS")}
        local["STRIPE_API_BASE"] = f"http://{HOST}:{ports['provider']}"
    return {**defaults, **local, **named, **fixed}


def port_number(text: str) -> int:
    """A TCP port an ordinary user may listen on."""
    if not text.isdecimal() or not 1024 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1024 to 65535")
    return int(text)


def answers(address: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def build(home: Home, port: int | None) -> Stack:
    """Open the home and put its copy together, without starting anything; ConfigurationError when a setting is wrong."""
    home.open()
    end_leftovers(home.state.get("processes", {}))
    ports = home.choose_ports(port)
    environment = settings(home, ports, dict(os.environ))
    Settings.from_env(environment)
    supervisor = Supervisor(home.log, environment, ROOT)
    cluster = local_cluster(home, ports)
    stack = Stack(home, ports, environment, supervisor, cluster if environment["DATABASE_URL"] == cluster.url() else None)
    supervisor.changed = stack.remember
    return stack


def main(argv: list[str] | None = None) -> int:
    """Run until a signal; exit status 0 after a clean stop, 1 when the product could not start."""
    parser = argparse.ArgumentParser(prog="python -m ops.stack", description=__doc__)
    parser.add_argument("--home", type=Path, default=path_from_environment())
    parser.add_argument("--port", type=port_number, default=os.environ.get("PORT") or None, help="of the web server")
    parser.add_argument("--no-demo", action="store_true", help="leave an empty database empty")
    given = parser.parse_args(argv)
    try:
        stack = build(Home(given.home.absolute()), given.port)
    except HomeError as error:
        print(error, file=sys.stderr)
        return 1
    except ConfigurationError as error:
        print("These settings keep the product from starting:", *error.problems, sep="\n  - ", file=sys.stderr)
        return 1
    if "MAKELEVEL" in os.environ:
        leash.follow_parent(signal.SIGTERM)
        stack.supervisor.asked_to_stop = leash.parent_interrupted
    stack.supervisor.watch()
    return run(stack, demo=not given.no_demo)


def run(stack: Stack, *, demo: bool) -> int:
    """Bring the copy up, keep it running, and leave nothing behind."""
    say, status = stack.supervisor.say, 0
    try:
        stack.bring_up(demo=demo)
        stack.greet()
        while True:
            stack.supervisor.pump(1.0)
    except Stopped as stopped:
        say(f"{stopped}: stopping")
    except StartError as error:
        say(str(error))
        status = 1
    finally:
        stack.home.save(ready=None)
        stack.supervisor.stop()
        stack.home.save(pid=None, processes=None)
    say("stopped" if status == 0 else "not started")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
