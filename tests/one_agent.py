"""An agent in a process of its own, for tests: it says what it hears, one JSON object a line, and counts refusals.

Its argument is a JSON object with folder, name, run, agents, observers, listen, connect and largest, and perhaps
unfinished, which it writes at its end. It reads commands, a line each, which ``obey`` describes. The end of its input
ends it.
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import zenoh

from gossamer.errors import InputError
from gossamer.network import credentials
from gossamer.network.access import Access, Credentials, zenoh_config
from gossamer.network.refusals import Refusals
from gossamer.network.topics import Topics
from gossamer.network.zenoh_log import ZenohLog


def main(choices):
    name, space = choices["name"], Topics(choices["run"])
    access = Access(choices["run"], name, tuple(choices["agents"]), tuple(choices["observers"]))
    own = Credentials.of(credentials.check(Path(choices["folder"]), name))
    config = zenoh_config(
        choices["listen"], choices["connect"], own, access, largest_message=choices["largest"]
    )
    refusals = Refusals(name)
    with ZenohLog(refusals):
        with open_session(config) as session:
            session.declare_subscriber(space.message("*", 0)[:-1] + "*", heard)
            session.liveliness().declare_subscriber(space.alive("*"), token, history=True)
            session.declare_queryable(
                space.status(name), lambda query: query.reply(space.status(name), b"well")
            )
            shown = session.liveliness().declare_token(space.alive(name, 1))
            tell(ready=True)
            for line in sys.stdin:
                obey(line.split(), session, refusals)
            shown.undeclare()
        os.write(1, choices.get("unfinished", "").encode())  # now that Zenoh writes no lines between
    tell(closed=refusals.counts())
    os.write(1, b"restored\n")


def open_session(config):
    settings = zenoh.Config()
    for key, value in config.items():
        settings.insert_json5(key, json.dumps(value))
    return zenoh.open(settings)


def obey(command, session, refusals):
    match command:
        case ["counts"]:
            tell(counts=refusals.counts())
        case ["say", key, text]:
            session.put(key, text)
        case ["ask", key]:
            tell(answers=[str(reply.ok.key_expr) for reply in session.get(key, timeout=1.0) if reply.ok])
        case ["again"]:
            try:
                ZenohLog(refusals).open()
            except InputError as error:
                tell(again=str(error))
        case ["where"]:
            tell(
                where=[sys.stdout.fileno(), *(each.stream.fileno() for each in logging.getLogger().handlers)]
            )
        case ["print", text]:
            print(text, flush=True)
        case ["write", text]:
            os.write(1, f"{text}\n".encode())
        case ["run", text]:
            subprocess.run([sys.executable, "-c", f"print({text!r})"], check=True)


def heard(sample):
    data = bytes(sample.payload)
    tell(heard=str(sample.key_expr), size=len(data), text=data[:5].decode())


def token(sample):
    tell(token=str(sample.key_expr), appeared=sample.kind == zenoh.SampleKind.PUT)


def tell(**what):
    sys.stdout.write(json.dumps(what) + "\n")  # print writes a line and its end one after the other
    sys.stdout.flush()


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, format="log: %(message)s")
    main(json.loads(sys.argv[1]))
