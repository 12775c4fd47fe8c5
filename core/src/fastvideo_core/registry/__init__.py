"""Plug-ins: what they declare, how they are found and loaded. Importing this imports neither torch nor pydantic."""

from fastvideo_core.registry.discovery import Plugin as Plugin
from fastvideo_core.registry.discovery import Provenance as Provenance
from fastvideo_core.registry.registration import register_callback as register_callback
from fastvideo_core.registry.registration import register_method as register_method
from fastvideo_core.registry.registration import register_model as register_model
from fastvideo_core.registry.registry import PluginRegistry as PluginRegistry
from fastvideo_core.registry.registry import PluginStatus as PluginStatus
from fastvideo_core.registry.specs import API_VERSION as API_VERSION
from fastvideo_core.registry.specs import CallbackPlugin as CallbackPlugin
from fastvideo_core.registry.specs import Kind as Kind
from fastvideo_core.registry.specs import MethodPlugin as MethodPlugin
from fastvideo_core.registry.specs import ModelPlugin as ModelPlugin
from fastvideo_core.registry.specs import Spec as Spec
