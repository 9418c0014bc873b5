"""Stand-ins for the processes that a supervisor starts: they speak its protocol and write down what they
hear.

    python -m tests.scripts.fake_children ROLE --home DIR [--trait ...] --settings JSON --control-fd N
        [--control-path PATH --alone-ms N --output-fd N]

Each appends one JSON line for each thing that happens to `story.jsonl` in DIR, so that the
order of the lines is the order of the events over all processes. They import nothing of the project's: they
start in a moment.
"""

import argparse
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

LIFE_SECONDS = 120  # a test that fails leaves nobody behind for longer
TRAITS = ("deaf", "mute", "crash", "babble", "rude", "corrupt", "lost")  # lost: finds no other supervisor
SEEK_SECONDS = 0.02


class Fake:
    def __init__(self, role, data, control, traits):
        self.role, self.data, self.traits = role, Path(data), traits
        self.control = socket.socket(fileno=control) if control is not None else None
        self.bell = self.holds = None
        self.drained = False

    def tell(self, what, **facts):
        line = json.dumps({"who": self.role, "what": what, "pid": os.getpid(), **facts}) + "\n"
        file = os.open(self.data / "story.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, line.encode())
        os.close(file)

    def send(self, message, fds=()):
        socket.send_fds(self.control, [json.dumps(message).encode()], list(fds))

    def hear(self):
        """Wait for a message and act on it. False: the supervisor has gone."""
        heard = select.poll()  # select itself knows no descriptor above 1023, and a parent may have as many
        for each in (self.control, self.bell):
            if each is not None:
                heard.register(each, select.POLLIN)
        ready = []
        while self.control.fileno() not in ready:
            ready = [fd for fd, _ in heard.poll()]
            if self.bell in ready:
                self.tell("rung", times=os.eventfd_read(self.bell))
        try:
            text, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 8)
        except ConnectionError:
            return False
        if not text:
            return False
        message = json.loads(text)
        contents = [read(fd) for fd in fds]
        self.tell("heard", message=message, contents=contents)
        if self.role == "engine" and message["kind"] == "gateway":
            os.eventfd_write(fds[1], 1)
        self.answer(message, len(fds))
        for fd in fds:
            os.close(fd)
        self.drained = message["kind"] == "drain" and "deaf" not in self.traits
        return not self.drained

    def answer(self, message, fd_count):
        """What the processes of an exchange say to each other; "silence" has no answer."""
        kind, epoch = message["kind"], message.get("epoch")
        if kind == "world" and fd_count == 3:
            self.send({"kind": "door", "epoch": epoch}, [memory(f"door {self.role[-1]} of {epoch}")])
        if self.role == "engine" and kind == "journal":
            self.send(
                {"kind": "journal", "epoch": self.epoch}, [memory(text) for text in ("ring", "stats", "bell")]
            )
        if self.role == "journaler" and kind == "journal":
            self.holds = epoch
        if self.role == "journaler" and kind == "engine_lost":
            self.holds = None
            self.send({"kind": "journal", "sequence": 6}, [memory("journaler stats"), os.eventfd(0)])
        if kind == "operator" and message["command"]["kind"] != "silence":
            is_done = message["command"]["kind"] == "deposit"
            why = {} if is_done else {"refusal": "balance"}
            self.send({"kind": "operator", "id": message["id"], "ok": is_done, "sequence": 17, **why})


def memory(text):
    fd = os.memfd_create("fake")
    os.write(fd, text.encode())
    return fd


def read(fd):
    """The text in a memfd; nothing for what is no file."""
    try:
        return os.pread(fd, 100, 0).decode()
    except OSError:
        return None


def introduce(fake, settings):
    if "rude" in fake.traits:
        fake.control.send(b"{not json")
        fake.send({"kind": "nonsense"}, [memory("")])
        fake.send({"kind": "world", "epoch": "seven"}, [memory("")])
    if fake.role == "engine":
        is_exchange = "markets" in settings
        bell = [os.eventfd(0)] if is_exchange else []
        fake.send({"kind": "stats"}, [memory("engine stats"), *bell])
        epoch = fake.epoch = settings["epoch"]
        fake.send({"kind": "world", "epoch": epoch, "height": 7}, [memory(f"world {epoch}")])
    elif fake.role == "journaler":
        if "corrupt" in fake.traits:
            sys.exit(65)
        holds = {"holds": fake.holds} if fake.holds else {}
        fake.send({"kind": "journal", "sequence": 5, **holds}, [memory("journaler stats"), os.eventfd(0)])
    elif fake.role != "replica":
        fake.bell = fake.bell or os.eventfd(0)
        fake.send({"kind": "gateway", "pid": os.getpid()}, [memory(f"stats {settings['index']}"), fake.bell])
        fake.send({"kind": "ready", "port": settings["port"]})


def live(fake, settings, given):
    signal.alarm(LIFE_SECONDS)
    signal.signal(signal.SIGTERM, lambda *_: (fake.tell("terminated"), sys.exit(0)))
    if "deaf" in fake.traits:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if given.spare:
        stand_by(fake, settings)
    fake.tell("started", settings=settings, fds=open_descriptors(), group=os.getpgrp())
    if "babble" in fake.traits:
        sys.stdout.write("plain\n\x1b[2Jhidden\n" + "x" * 10_000 + "\nno newline")
        sys.stdout.flush()
    if "crash" in fake.traits:
        sys.exit(3)
    if fake.control is None or "mute" in fake.traits:
        if fake.control is not None:
            fake.control.close()
        while True:
            time.sleep(60)
    introduce(fake, settings)
    while fake.hear() or found_another(fake, given):
        pass
    while "deaf" in fake.traits:
        time.sleep(60)
    fake.tell("ended")


def stand_by(fake, settings):
    """Until it is called, which changes settings and gives a place."""
    fake.tell("stands by")
    fake.send({"kind": "spare"})
    text, fds, _, _ = socket.recv_fds(fake.control, 1 << 16, 8)
    if not text:
        fake.tell("was not called")
        sys.exit(0)
    message = json.loads(text)
    fake.tell("called", message=message, place=os.readlink(f"/proc/self/fd/{fds[0]}"))
    start_time = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    os.pwrite(fds[0], f"{os.getpid()} {start_time} {message['note']}".encode(), 0)
    settings.update(message["settings"])


def found_another(fake, given):
    """Whether a supervisor has come in place of the one that has gone; it is told everything again."""
    if fake.drained or given.control_path is None or "deaf" in fake.traits:
        return False
    fake.tell("alone")
    print("alone", flush=True)
    until = time.monotonic() + given.alone_ms / 1000
    while time.monotonic() < until:
        time.sleep(SEEK_SECONDS)
        if "lost" in fake.traits:
            continue
        found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            found.connect(given.control_path)
        except OSError:
            continue
        fake.control = found
        fake.send({"kind": "orphan"}, [given.output_fd])
        introduce(fake, given.settings)
        return True
    return False


def open_descriptors():
    """What the process has inherited beyond its standard streams, as what each of them is."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that listed them
        if int(name) > 2:
            found.append(target)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["engine", "gateway", "simulation", "journaler", "replica"])
    for trait in TRAITS:
        parser.add_argument(f"--{trait}", action="append_const", dest="traits", const=trait, default=[])
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--control-path")
    parser.add_argument("--alone-ms", type=int)
    parser.add_argument("--output-fd", type=int)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--spare")
    for what_a_simulation_is_told in ("--out", "--info-port", "--operator", "--url"):
        parser.add_argument(what_a_simulation_is_told)
    given = parser.parse_args()
    name = f"gateway {given.settings['index']}" if given.role == "gateway" else given.role
    live(Fake(name, given.home, given.control_fd, given.traits), given.settings, given)


if __name__ == "__main__":
    main()
