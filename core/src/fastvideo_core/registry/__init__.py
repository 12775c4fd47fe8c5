"""Plug-ins: what they declare, how they are found and loaded. Importing this imports neither torch nor pydantic."""

from __future__ import annotations

from fastvideo_core.registry.discovery import Plugin, Provenance
from fastvideo_core.registry.registration import (
    isolated_registrations,
    register_callback,
    register_method,
    register_model,
)
from fastvideo_core.registry.registry import PluginRegistry, PluginStatus
from fastvideo_core.registry.specs import API_VERSION, CallbackPlugin, Kind, MethodPlugin, ModelPlugin, Spec

__all__ = [
    "API_VERSION",
    "CallbackPlugin",
    "Kind",
    "MethodPlugin",
    "ModelPlugin",
    "Plugin",
    "PluginRegistry",
    "PluginStatus",
    "Provenance",
    "Spec",
    "isolated_registrations",
    "register_callback",
    "register_method",
    "register_model",
]
