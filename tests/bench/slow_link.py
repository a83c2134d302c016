"""A way to a port of this machine on which each answer takes a millisecond: a network, for those who wait for answers.

It prints its port, and ends with its input. `python tests/bench/slow_link.py PORT`.
"""

import asyncio
import sys

SECONDS = 0.001


class End(asyncio.Protocol):
    """One end of a connection: what it gets goes to the other end, at once or later."""

    transport: asyncio.Transport

    def __init__(self, other: "End | None" = None, *, seconds: float = 0.0) -> None:
        self._other, self._seconds = other, seconds
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect the other end, if this one is the client's."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._other is None:
            self._connecting = asyncio.ensure_future(self._connect())

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._other is None:
            self._early.append(data)
        elif self._seconds:
            asyncio.get_running_loop().call_later(self._seconds, self._other.transport.write, data)
        else:
            self._other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        """End the other end, after what is under way."""
        if self._other is not None:
            asyncio.get_running_loop().call_later(2 * SECONDS, self._other.transport.close)

    async def _connect(self) -> None:
        server = End(self, seconds=SECONDS)
        await asyncio.get_running_loop().create_connection(lambda: server, "127.0.0.1", int(sys.argv[1]))
        server.transport.writelines(self._early)
        self._other = server


async def main() -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(End, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
