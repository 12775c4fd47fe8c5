"""How a plug-in is registered: what loading its spec and options does in a fresh interpreter, and what its package lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from fastvideo_core.callbacks.hooks import Callback
from fastvideo_core.contracts.family import ModelFamily
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.registry import Kind, Plugin, PluginRegistry
from fastvideo_core.registry.discovery import pip_command

CPU_SECONDS = 0.5
"""Of the processor, from which on loading a spec is slow; most take a thousandth."""

_BASES: dict[Kind, type] = {"methods": DistillMethod, "models": ModelFamily, "callbacks": Callback}

_FRESH = """
import json, logging, os, sys, time
from fastvideo_core.registry import PluginRegistry
kind, name = sys.argv[1:]
registry = PluginRegistry()
registry.names(kind)

def world():
    handlers = [type(handler).__name__ for handler in logging.root.handlers]
    return {"the working folder": os.getcwd(), "logging": f"{logging.root.level} {handlers}"}

variables, putenv = [], os.putenv

def put(name, value):  # not by comparing: the tests' own process may have loaded the plug-in, and this one has its variables
    variables.append("the environment variable " + os.fsdecode(name))
    putenv(name, value)

os.putenv = put
before, modules, start = world(), set(sys.modules), time.process_time()
plugin = registry.get(kind, name)
seen = {"seconds": time.process_time() - start, "spec": "torch" in sys.modules}
brought = {module.partition(".")[0] for module in set(sys.modules) - modules} - {m.partition(".")[0] for m in modules}
seen["brought"] = sorted(name for name in brought - set(sys.stdlib_module_names) if not name.startswith("_"))
registry.config_class(plugin)
seen["config"] = "torch" in sys.modules
after = world()
seen["moved"] = [*dict.fromkeys(variables), *(key for key in before if before[key] != after[key])]
print()
print(json.dumps(seen))
"""


def wrong_when_loaded(plugin: Plugin) -> Iterator[str]:
    """What is wrong with loading its spec and options, in a fresh interpreter."""
    spec, config = plugin.provenance.value, plugin.spec.targets["config"]
    command = [sys.executable, "-c", _FRESH, plugin.provenance.kind, f"{plugin.provenance.distribution}:{plugin.name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"in a fresh interpreter it cannot be loaded:\n{done.stderr}"
        return
    printed, _, last = done.stdout.rstrip("\n").rpartition("\n")
    seen: dict[str, Any] = json.loads(last)
    for word, target in (("spec", spec), ("config", config)):
        if seen[word]:
            yield (
                f"loading {target} imports torch, so that listing and checking take seconds; import it under "
                "`if TYPE_CHECKING:` there, and for real only where networks are built"
            )
            return
    if seen["seconds"] > CPU_SECONDS:
        others = [name for name in seen["brought"] if name != spec.partition(":")[0].partition(".")[0]]
        brought = f", which imports {', '.join(others)}," if others else ""
        yield (
            f"loading {spec}{brought} takes {seen['seconds']:.1f} s of the processor, whenever plug-ins are listed: the "
            "spec's module should import nothing but fastvideo_core, and work belongs where the plug-in is used"
        )
    if printed.strip():
        yield (
            f"loading {spec} and {config} prints {printed.strip()[:200]!r}, which gets into what commands print, such as "
            "JSON; log it where the plug-in is used (logging.getLogger(__name__)), or remove it"
        )
    if seen["moved"]:
        yield (
            f"loading {spec} and {config} changes {', '.join(seen['moved'])} of the whole process, for all other plug-ins; "
            "do such things where the plug-in is used, and leave logging to the program"
        )


def wrong_in_the_list(plugin: Plugin, registry: PluginRegistry) -> Iterator[str]:
    """What `fastvideo-distill plugins` says of it, and what a run that names it would."""
    status = next(item for item in registry.list() if item.provenance == plugin.provenance)
    if not status.healthy:
        yield f"`fastvideo-distill plugins` shows it as BROKEN:\n{status.problem}"
        return
    if unmet := status.provenance.unmet:
        yield (
            f"`fastvideo-distill plugins` shows it as incomplete: {plugin.provenance.distribution} "
            f"{'; '.join(map(str, unmet))}. Install it: {pip_command(unmet)}; or mend `dependencies` in its "
            "pyproject.toml, if it needs something else"
        )
    impl: Any = registry.resolve(plugin, "impl")
    base = _BASES[plugin.provenance.kind]
    if isinstance(impl, type) and not issubclass(impl, base):
        yield (
            f"its `impl` {plugin.spec.targets['impl']} is {impl.__name__}, which is no {base.__name__}: subclass "
            f"fastvideo_core.{base.__name__}, or name the class that does"
        )
    elif plugin.provenance.installed and not isinstance(impl, type):
        yield (
            f"its `impl` {plugin.spec.targets['impl']} is {impl!r}: the spec names the class, a subclass "
            f"of fastvideo_core.{base.__name__}"
        )
    for target, value in plugin.spec.targets.items():
        if value is not None:
            registry.resolve(plugin, target)
    registry.config_class(plugin)
