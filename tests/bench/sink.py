"""What carbon is to a sender, and costs as little as can be: it reads to the end of a stream, and closes.

It prints its port; for each line on its input it prints how many lines it has had. `python tests/bench/sink.py`.
"""

import asyncio
import sys


class Sink(asyncio.Protocol):
    """One connection."""

    lines = 0
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Count lines."""
        Sink.lines += data.count(b"\n")


async def main() -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(Sink.lines, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
