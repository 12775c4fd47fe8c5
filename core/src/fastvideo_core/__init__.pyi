from typing import Final

from fastvideo_core.callbacks.base import Callback as Callback
from fastvideo_core.callbacks.hooks import hookimpl as hookimpl
from fastvideo_core.cli.functions import build_runtime as build_runtime
from fastvideo_core.cli.functions import sample as sample
from fastvideo_core.cli.functions import train as train
from fastvideo_core.config.base import DenoisingSteps as DenoisingSteps
from fastvideo_core.config.base import FewStepConfig as FewStepConfig
from fastvideo_core.config.base import FloatPair as FloatPair
from fastvideo_core.config.base import FloatTuple as FloatTuple
from fastvideo_core.config.base import GuidedPipelineConfig as GuidedPipelineConfig
from fastvideo_core.config.base import IntTuple as IntTuple
from fastvideo_core.config.base import MethodConfig as MethodConfig
from fastvideo_core.config.base import PipelineConfig as PipelineConfig
from fastvideo_core.config.base import PluginConfig as PluginConfig
from fastvideo_core.config.base import StrTuple as StrTuple
from fastvideo_core.config.run import LoraConfig as LoraConfig
from fastvideo_core.config.run import RoleConfig as RoleConfig
from fastvideo_core.config.run import RunConfig as RunConfig
from fastvideo_core.config.training import TrainingArgs as TrainingArgs
from fastvideo_core.contracts.adapter import DistillAdapter as DistillAdapter
from fastvideo_core.contracts.batch import TrainingBatch as TrainingBatch
from fastvideo_core.contracts.family import Findings as Findings
from fastvideo_core.contracts.family import ModelComponents as ModelComponents
from fastvideo_core.contracts.family import ModelFamily as ModelFamily
from fastvideo_core.contracts.family import RoleOutline as RoleOutline
from fastvideo_core.contracts.flow_adapter import FlowMatchingAdapter as FlowMatchingAdapter
from fastvideo_core.contracts.hidden_states import features_of as features_of
from fastvideo_core.contracts.method import DistillMethod as DistillMethod
from fastvideo_core.contracts.rng import RandomStreams as RandomStreams
from fastvideo_core.contracts.roles import RoleHandle as RoleHandle
from fastvideo_core.contracts.roles import RoleManager as RoleManager
from fastvideo_core.contracts.roles import WeightSource as WeightSource
from fastvideo_core.contracts.validator import DistillValidator as DistillValidator
from fastvideo_core.contracts.validator import ValidationRequest as ValidationRequest
from fastvideo_core.dispatch.load_run_config import load_run_config as load_run_config
from fastvideo_core.registry.registration import register_callback as register_callback
from fastvideo_core.registry.registration import register_method as register_method
from fastvideo_core.registry.registration import register_model as register_model
from fastvideo_core.registry.specs import API_VERSION as API_VERSION
from fastvideo_core.registry.specs import CallbackPlugin as CallbackPlugin
from fastvideo_core.registry.specs import Command as Command
from fastvideo_core.registry.specs import CommandPlugin as CommandPlugin
from fastvideo_core.registry.specs import MethodPlugin as MethodPlugin
from fastvideo_core.registry.specs import ModelPlugin as ModelPlugin

__version__: Final[str]
