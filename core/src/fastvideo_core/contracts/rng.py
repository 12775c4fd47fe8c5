"""Named random streams: every draw of a run comes from one of them, and all of them are in the checkpoint."""

import hashlib

import torch
from torch import Tensor


class RandomStreams:
    """Random generators by name, seeded from (seed, name, data rank) and created at first use.

    Streams are independent of one another: a new stream changes no existing one's numbers. `local` streams draw on
    `device`, `shared` ones on the CPU, because their numbers steer the program and must not wait for the device.
    """

    def __init__(self, seed: int, rank: int = 0, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.rank = rank
        self.device = torch.device(device)
        self._streams: dict[str, torch.Generator] = {}

    def local(self, name: str) -> torch.Generator:
        """The stream `name` of this rank: different numbers on every data-parallel rank."""
        return self._stream(f"local/{name}", self.rank, self.device)

    def shared(self, name: str) -> torch.Generator:
        """The stream `name` of the whole run: equal numbers on all ranks, as long as all draw alike."""
        return self._stream(f"shared/{name}", None, torch.device("cpu"))

    def state_dict(self) -> dict[str, Tensor]:
        """The state of every stream used so far, uint8."""
        return {key: generator.get_state().clone() for key, generator in sorted(self._streams.items())}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores the streams; one that is not in `state` starts afresh from the seed."""
        self._streams.clear()
        for key, value in state.items():
            kind, _, name = key.partition("/")
            (self.shared if kind == "shared" else self.local)(name).set_state(value)

    def _stream(self, key: str, rank: int | None, device: torch.device) -> torch.Generator:
        if key not in self._streams:
            self._streams[key] = torch.Generator(device).manual_seed(stream_seed(self.seed, key, rank))
        return self._streams[key]


def stream_seed(seed: int, name: str, rank: int | None = None) -> int:
    """A 63-bit seed from (seed, name, rank): stable across machines, processes and Python's hash randomisation."""
    digest = hashlib.sha256(f"{seed}/{rank}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
