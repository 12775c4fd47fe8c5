"""Installed packages made of a dist-info folder and a few modules, as pip would leave them."""

from __future__ import annotations

from pathlib import Path


def install(
    site: Path,
    distribution: str,
    *,
    version: str = "1.2.0",
    entry_points: str = "",
    modules: dict[str, str] | None = None,
    requires: tuple[str, ...] = (),
) -> None:
    """Write one distribution into a folder that is on sys.path.

    Args:
        entry_points: the text of entry_points.txt.
        modules: sources by path, such as {"pkg/plugin.py": "..."}; packages get an empty __init__.py.
        requires: its requirements, as pyproject.toml has them.
    """
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{needs}")
    (info / "entry_points.txt").write_text(entry_points)
    for name, source in (modules or {}).items():
        file = site / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.parent != site:
            (file.parent / "__init__.py").touch()
        file.write_text(source)


def method_spec(name: str = "fancy", package: str = "pkg", api: str = "API_VERSION", **changes: str) -> str:
    """Source of a spec module of a method."""
    fields = {"impl": f"'{package}.method:Fancy'", "config": f"'{package}.config:FancyConfig'", "roles": "('student',)"}
    arguments = ", ".join(f"{field}={value}" for field, value in (fields | changes).items())
    return (
        "from fastvideo_core.registry.specs import API_VERSION, CallbackPlugin, MethodPlugin, ModelPlugin\n"
        f"PLUGIN = MethodPlugin(name={name!r}, api={api}, {arguments})\n"
    )


METHOD = "class Fancy: pass\n"
CONFIG = "from fastvideo_core import PluginConfig\nclass FancyConfig(PluginConfig): pass\n"
ENTRY = "[fastvideo.methods]\nfancy = {package}.plugin:PLUGIN\n"
