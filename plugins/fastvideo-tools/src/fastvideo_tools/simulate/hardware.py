"""What a GPU and its links do, by their makers' sheets, and how much of it is achieved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import yaml

from fastvideo_core.errors import ConfigError, Problem, did_you_mean


@dataclass(frozen=True)
class Hardware:
    """A kind of GPU in nodes of several; all rates are of one GPU in one direction.

    Args:
        tflops: dense bfloat16, 10^12 per second.
        memory_gb: of a GPU, 10^9 bytes, and `memory_tbs` its rate, 10^12 bytes per second.
        nvlink_gbs: inside a node, 10^9 bytes per second.
        network_gbs: between nodes.
        host_gbs: to and from the node's own memory.
        compute_achieved: part of `tflops` that a pass achieves, attention and recomputation among its FLOPs.
        links_achieved: part of the three links' rates.
        microseconds_per_operator: least time of an operator, which Python and the launch of its kernel take.
        microseconds_per_hop: what each further node adds to a collective, beside `microseconds_per_collective`.
    """

    name: str
    tflops: float
    memory_gb: float
    memory_tbs: float
    nvlink_gbs: float
    network_gbs: float
    host_gbs: float
    compute_achieved: float = 0.42
    links_achieved: float = 0.8
    microseconds_per_operator: float = 30.0
    microseconds_per_collective: float = 20.0
    microseconds_per_hop: float = 5.0

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if key != "name" and not (isinstance(value, (int, float)) and 0 < value < float("inf")):
                raise ConfigError(Problem(f"found {value!r}", key, "a number above 0"))
        for key in ("compute_achieved", "links_achieved"):
            if getattr(self, key) > 1:
                raise ConfigError(Problem(f"found {getattr(self, key)}", key, "at most 1"))


# NVIDIA's data sheets of H100 SXM, H200 SXM and DGX B200 (a GPU is an eighth): dense bfloat16 is half of what is printed
# "with sparsity"; NVLink (900, 900 and 1800 GB/s) and PCIe 5.0 x16 (128 GB/s) are printed for both directions together. Network:
# DGX H100, H200 and B200 have eight ConnectX-7 of 400 Gb/s, one for each GPU. What is achieved of FLOP/s, and the time of an
# operator, are measured (docs/simulate.md); what is achieved of links, and the times per collective and hop, are assumed.
KNOWN = {
    one.name: one
    for one in (
        Hardware("H100", 989, 80, 3.35, 450, 50, 64),
        Hardware("H200", 989, 141, 4.8, 450, 50, 64),
        Hardware("B200", 2250, 180, 8, 900, 50, 64),
    )
}


def hardware(name: str) -> Hardware:
    """The hardware of that name, or that of a YAML file with the keys of `Hardware`; `like: H100` begins with another's.

    Raises:
        ConfigError: there is neither, or the file does not say enough.
    """
    if (known := KNOWN.get(name.upper())) is not None:
        return known
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        fix = did_you_mean(name, KNOWN, "name a file that says what it does")
        raise ConfigError(Problem(f"{name!r} is not known", "--hardware", f"{', '.join(KNOWN)}, or a YAML file", fix))
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(Problem(f"cannot be read: {error}", str(path))) from error
    keys = [one.name for one in fields(Hardware)]
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(Problem("is no mapping", str(path), f"keys: {', '.join(keys)}"))
    base = found.pop("like", None)
    if unknown := [key for key in found if key not in keys]:
        fix = did_you_mean(unknown[0], keys)
        raise ConfigError(Problem(f"unknown key {unknown[0]!r}", str(path), ", ".join(keys), fix))
    named = {"name": path.stem, **found}
    if base is not None:
        return replace(hardware(str(base)), **named)
    if missing := [one.name for one in fields(Hardware)[:7] if one.name not in named]:
        raise ConfigError(Problem(f"lacks {', '.join(missing)}", str(path), fix="add them, or begin with `like: H100`"))
    return Hardware(**named)
