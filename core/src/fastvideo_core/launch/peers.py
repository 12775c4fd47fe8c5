"""Notices that another process of the run is gone, where no launcher does: those that srun or a script started by hand.

Each process keeps a connection to the main one, which the system closes when a process ends, however it ends. Without it
torch waits half an hour for a peer that is gone, where processes meet anew, and longer on GPUs.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import struct
import threading
import time
from contextlib import suppress

from fastvideo_core.distributed import context
from fastvideo_core.errors import Problem
from fastvideo_core.launch.stdio import complain

logger = logging.getLogger(__name__)

_GRACE = 30.0  # seconds that a process has for ending in order when another one is gone
_CONNECT = 10.0  # seconds
_NUMBER = struct.Struct("!i")
_LEAVES = _NUMBER.pack(-1)  # what a process says that leaves in order; any other number is a rank that is gone

_peers: _Peers | None = None


def watch_peers() -> None:
    """From now on this process knows of peers that are gone, and ends when it has waited for one in vain. Collective."""
    global _peers
    watched = "TORCHELASTIC_RUN_ID" in os.environ  # by torch's launcher
    if _peers is None and context.world_size() > 1 and not watched:
        _peers = _Peers()


def lost_peer(wait: float = 0.0) -> Problem | None:
    """A process of the run that is gone, if one is known to be, or is found to be within so many seconds."""
    if _peers is None:
        return None
    _peers.known.wait(wait)
    return _peers.lost


def leave_peers() -> None:
    """Tells the others that this process ends in order."""
    global _peers
    if _peers is not None:
        _peers.tell(_LEAVES)
    _peers = None


class _Peers:
    """Connections between the main process and each other one, and threads that read them; making one is collective."""

    def __init__(self) -> None:
        self.known = threading.Event()
        self.lost: Problem | None = None
        self._ranks: dict[socket.socket, int] = {}  # by their connections
        listener = _listener() if context.is_main_process() else None
        port = listener.getsockname()[1] if listener is not None else 0
        port, token = context.from_main((port, secrets.token_bytes(16)))
        try:
            if listener is not None:
                self._accept_others(listener, token)
            else:
                main = socket.create_connection((os.environ["MASTER_ADDR"], port), timeout=_CONNECT)
                main.sendall(token + _NUMBER.pack(context.rank()))
                self._ranks[main] = 0
        except OSError as error:
            logger.warning("process %d will not notice when others are gone: %s", context.rank(), error)
        accepted = context.from_main(list(self._ranks.values()))
        for connection, rank in self._ranks.items():
            if listener is not None or context.rank() in accepted:
                threading.Thread(target=self._watch, args=(connection, rank), daemon=True).start()

    def tell(self, message: bytes) -> None:
        for connection in self._ranks:
            with suppress(OSError):
                connection.sendall(message)

    def _accept_others(self, listener: socket.socket, token: bytes) -> None:
        with listener:
            listener.settimeout(_CONNECT)
            while len(self._ranks) < context.world_size() - 1:
                connection, _ = listener.accept()
                connection.settimeout(_CONNECT)
                hello = _read(connection, len(token) + _NUMBER.size)
                if secrets.compare_digest(hello[: len(token)], token):  # else it looks for open ports
                    (self._ranks[connection],) = _NUMBER.unpack(hello[len(token) :])

    def _watch(self, connection: socket.socket, rank: int) -> None:
        """Ends this process some time after one is gone: its main thread, which should, may wait for that one."""
        connection.settimeout(None)
        said = _read(connection, _NUMBER.size)
        if said == _LEAVES or self.known.is_set():
            return
        lost = _NUMBER.unpack(said)[0] if len(said) == _NUMBER.size else rank
        self.tell(_NUMBER.pack(lost))
        found = f"process {lost} of {context.world_size()} is gone: it failed or was killed, or its machine was lost"
        fix = "see what it said; --resume latest goes on from the last checkpoint, if there is one"
        self.lost = Problem(found, fix=fix)
        self.known.set()
        time.sleep(_GRACE)
        complain(f"error: {self.lost}")
        os._exit(1)


def _listener() -> socket.socket:
    both = socket.has_dualstack_ipv6()
    return socket.create_server(("", 0), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both)


def _read(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer when it ends before."""
    try:
        return connection.recv(size, socket.MSG_WAITALL)
    except OSError:
        return b""
