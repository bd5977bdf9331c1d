"""An agent in a process of its own, for tests: prints what it receives, one JSON object a line.

Its argument is a JSON object with folder, name, run, agents, observers, listen, connect and largest. It reads commands,
one a line, which ``obey`` executes, until the end of its input.
"""

import json
import sys
from contextlib import closing
from pathlib import Path

from gossamer.network import credentials
from gossamer.network.access import Access, Credentials, zenoh_config
from gossamer.network.session import Session
from gossamer.network.topics import Topics


def main(choices):
    name, topics = choices["name"], Topics(choices["run"])
    access = Access(choices["run"], name, tuple(choices["agents"]), tuple(choices["observers"]))
    own = Credentials.of(credentials.check(Path(choices["folder"]), name))
    config = zenoh_config(
        choices["listen"], choices["connect"], own, access, largest_message=choices["largest"]
    )

    def status():
        tell(asked=True)
        return b"well"

    with closing(Session(config)) as session:
        session.subscribe(topics.message("*", 0)[:-1] + "*", heard, lossless=True)
        session.watch_tokens(
            topics.alive("*"),
            lambda key: tell(token=key, appeared=True),
            lambda key: tell(token=key, appeared=False),
        )
        session.answer(topics.status(name), status)
        withdraw = session.declare_token(topics.alive(name, 1))
        tell(ready=True)
        for line in sys.stdin:
            obey(line.split(), session)
        withdraw()


def obey(command, session):
    match command:
        case ["say", key, text]:
            session.publisher(key, lossless=True).put(text.encode())
        case ["ask", key, seconds]:
            tell(answers=sorted(session.ask(key, float(seconds))))
        case ["links"]:  # names in the certificates of those that are connected
            tell(links=[link.auth_identifier for link in session._session.info.links()])


def heard(key, data):
    tell(heard=key, size=len(data), text=data[:5].decode())


def tell(**what):
    sys.stdout.write(json.dumps(what) + "\n")  # print would write the line and its end separately
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
