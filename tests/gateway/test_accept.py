"""Caps hold, silence is noticed, and a process without descriptors waits instead of spinning."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from gateway.accept import Acceptor, Counts, Seat, Sweeper, network_of
from gateway.http import Limits
from tests.gateway.rim import Client, request, serving

ROOT = Path(__file__).parents[2]

STARVED = """
import asyncio, resource, socket, sys
import uvloop
from gateway.front import Front
from gateway.http import HttpAnswer, Limits

class Application:
    paths = {("POST", "/info")}

    def answer(self, path, body, request):
        return HttpAnswer(str(self.front.counts.accept_failures).encode())

async def main():
    application = Application()
    application.front = Front(application, print, Limits(accept_retry_seconds=0.1))
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    application.front.serve(listener)
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    print(listener.getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await application.front.close()

uvloop.run(main())
"""


@pytest.fixture
def starved():
    """The port of a front in a process that may have 32 descriptors."""
    command = [sys.executable, "-c", STARVED]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(10) == 0


def failures(client: Client) -> int:
    status, body = client.post()
    assert status == 200
    return int(body)


def test_without_descriptors_it_waits_and_recovers(starved):
    with Client(starved) as first:
        assert failures(first) == 0
        crowd = [Client(starved) for _ in range(60)]
        for _ in range(10):
            crowd[-1].socket.settimeout(0.1)
            with pytest.raises(TimeoutError):  # no room: neither an answer nor a refusal
                crowd[-1].post()
        seen = failures(first)
        assert 0 < seen < 100, "a loop that spins fails tens of thousands of times meanwhile"
        for client in crowd:
            client.socket.close()
        with Client(starved) as late:
            assert failures(late) < seen + 100


def test_more_connections_than_the_cap_are_told_so():
    with serving(connections_max=2) as served:
        with Client(served.port) as first, Client(served.port) as second:
            assert (first.post()[0], second.post()[0]) == (200, 200)
            with Client(served.port) as third:
                status, headers, body = third.answer()
                assert (status, headers["retry-after"], body) == (503, "1", b"null")
                assert third.to_the_end() == b""
            assert served.front.counts.refused_full == 1
        served.until(lambda: served.front.counts.open == 0)
        with Client(served.port) as later:
            assert later.post()[0] == 200


def test_one_address_has_a_cap_of_its_own():
    with serving(connections_per_address_max=1) as served, Client(served.port) as first:
        assert first.post()[0] == 200
        with Client(served.port) as second:
            assert second.answer()[0] == 503
        with socket.create_connection(("127.0.0.1", served.port), 10, ("127.0.0.2", 0)) as elsewhere:
            elsewhere.sendall(request("POST", "/info"))
            assert elsewhere.recv(12) == b"HTTP/1.1 200"
        assert served.front.counts.refused_address == 1


def test_a_websocket_keeps_its_seat_until_it_is_gone():
    with serving(connections_max=1) as served:
        with Client(served.port) as first:
            first.websocket()
            with Client(served.port) as second:
                assert second.answer()[0] == 503
        served.until(lambda: served.front.counts.open == 0)
        with Client(served.port) as later:
            later.websocket()


@pytest.mark.parametrize(("address", "network"), [
    ("10.1.2.3", "10.1.2.3"),
    ("::ffff:10.1.2.3", "10.1.2.3"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2::", "2001:db8:1:2::/64"),
    ("fe80::1%eth0", "fe80::/64"),
    ("", ""),
])  # fmt: skip
def test_one_client_is_an_ipv4_address_or_an_ipv6_64(address, network):
    assert network_of(address) == network


def test_a_paused_acceptor_leaves_clients_waiting():
    with serving() as served:
        acceptor = served.front._acceptors[0]
        served.call(acceptor.pause)
        with Client(served.port) as client:
            client.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.post()
            assert served.front.counts.accepted == 0
            served.call(acceptor.resume)
            client.socket.settimeout(10)
            assert client.answer()[0] == 200


def test_a_protocol_that_cannot_be_made_leaves_its_seat():
    faults, counts = [], Counts()

    def fail(seat: Seat):
        raise RuntimeError("no protocol")

    async def main():
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        acceptor = Acceptor(loop, listener, fail, Limits(), counts, faults.append)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        await acceptor.close()

    uvloop.run(main())
    assert ([str(fault) for fault in faults], counts.accepted, counts.open) == (["no protocol"], 1, 0)


class Late:
    """Counts how often it was swept, and leaves the sweeper's watch after some."""

    def __init__(self, sweeper: Sweeper, most: int):
        self.sweeper, self.most, self.swept = sweeper, most, 0

    def sweep(self, now: float) -> None:
        self.swept += 1
        if self.swept == self.most:
            self.sweeper.discard(self)
            raise RuntimeError("its own fault")


def test_everyone_is_swept_and_one_bad_sweep_stops_no_other():
    faults = []

    async def main():
        sweeper = Sweeper(asyncio.get_running_loop(), 0.001, faults.append)
        watched = [Late(sweeper, most) for most in range(1, 40)]
        for late in watched:
            sweeper.add(late)
        while any(late.swept < late.most for late in watched):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        sweeper.stop()
        assert [late.swept for late in watched] == [late.most for late in watched]

    uvloop.run(main())
    assert len(faults) == 39
