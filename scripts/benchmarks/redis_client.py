"""A minimal Redis client: commands encoded once, many connections, one epoll loop.

As little Python per reply as can be, so that the server is what is measured: a round sends
prepared bytes and counts replies by counting bytes that each of them holds once.
"""

from __future__ import annotations

import select
import socket
import time
from typing import Final

from benchmarks.servers import Address

BUFFER_BYTES: Final = 1 << 18


def command(*words: bytes) -> bytes:
    """One command as RESP writes it."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def xadd(stream: bytes, value: bytes, times: int) -> bytes:
    """So many appends of one entry with one field."""
    return command(b"XADD", stream, b"*", b"v", value) * times


def rate(address: Address, request: bytes, *, connections: int, each: int, seconds: float) -> float:
    """Replies a second if every connection sends ``request`` (``each`` commands), waits for all
    its replies, and begins again.

    A reply is told by its ``$``: it must be one bulk string that holds none.
    """
    sockets = [socket.create_connection(address) for _ in range(connections)]
    by_number = {one.fileno(): one for one in sockets}
    waiting = dict.fromkeys(by_number, 0)
    poll = select.epoll()
    try:
        for one in sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(one, select.EPOLLIN)
        start = time.perf_counter()
        for number, one in by_number.items():
            one.sendall(request)
            waiting[number] = each
        done, end = 0, start + seconds
        while (now := time.perf_counter()) < end:
            for number, _ in poll.poll(1.0):
                one = by_number[number]
                replies = one.recv(BUFFER_BYTES)
                assert not replies.startswith(b"-"), replies[:100]
                got = replies.count(b"$")
                done += got
                waiting[number] -= got
                if waiting[number] == 0:
                    one.sendall(request)
                    waiting[number] = each
        return done / (now - start)
    finally:
        poll.close()
        for one in sockets:
            one.close()
