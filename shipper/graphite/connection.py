"""Connections to Carbon and graphite-web, opened in a limited time, whatever a name server or an address does."""

import socket
import threading
import time
from concurrent.futures import Future
from typing import Any

MOST_ADDRESSES = 8
"""Maximum number of addresses of a name that are tried: each gets its part of the time."""

_Address = tuple[Any, ...]
_asked: dict[tuple[str, int], "Future[list[_Address]]"] = {}
_asking = threading.Lock()


def connect(host: str, port: int, *, timeout: float) -> socket.socket:
    """Return a connection, whose steps have the same timeout.

    timeout bounds the name server and all addresses of the name together, in seconds.

    Raises:
        OSError: there is none in time.
    """
    deadline = time.monotonic() + timeout
    addresses = _resolve(host, port, timeout)[:MOST_ADDRESSES]
    for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):
        connection = socket.socket(family, kind, protocol)
        try:
            # the first address may never answer: those after it get a part of the time
            connection.settimeout(time_left(deadline) / (1 + len(addresses) - number))
            connection.connect(address)
        except OSError:
            connection.close()
            if number == len(addresses):
                raise
        else:
            connection.settimeout(timeout)
            return connection
    raise OSError(f"no address for {host}")


def time_left(deadline: float) -> float:
    """Return the seconds until a time of the monotonic clock.

    Raises:
        TimeoutError: none is left.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _resolve(host: str, port: int, timeout: float) -> list[_Address]:
    """Return the addresses of a name; a name server has the time-out, which its library does not know."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):  # a name
        pass
    # one thread for each name, however often it is asked for meanwhile
    with _asking:
        answer = _asked.get((host, port))
        if answer is None:
            answer = _asked[host, port] = Future()
            threading.Thread(target=_ask, args=(host, port, answer), name="resolver", daemon=True).start()
    return answer.result(timeout)


def _ask(host: str, port: int, answer: "Future[list[_Address]]") -> None:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        answer.set_exception(OSError(f"not the name of a host: {error}"))
    except BaseException as error:  # noqa: BLE001 - raised where the answer is waited for
        answer.set_exception(error)
    else:
        answer.set_result(addresses)
    finally:
        with _asking:
            del _asked[host, port]
