"""What each key of FastVideo's run files becomes here: data, and the few places where it depends on other keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastvideo_core.config.check import SCHEDULE_USERS

FAMILIES = {"WanModel": "wan", "LTX2Model": "ltx"}
"""FastVideo's model class -> family here."""

METHODS = {"DMD2Method": "dmd2", "FineTuneMethod": "finetune"}
"""FastVideo's method class -> method here."""

LATENT_FRAME = {"wan": 4, "ltx": 8}
"""Family -> video frames per latent frame."""


@dataclass(frozen=True)
class Source:
    """What rules may look at besides the value.

    Attributes:
        data: the whole file.
        family: here.
        method: here.
    """

    data: Mapping[str, Any]
    family: str
    method: str

    def get(self, *path: str) -> Any:
        """The value at a path; None where there is none."""
        value: Any = self.data
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def number(self, *path: str) -> float:
        """A number at a path; 0 where there is none."""
        value = as_number(self.get(*path))
        return value if isinstance(value, (int, float)) else 0


@dataclass(frozen=True)
class Taken:
    """A value and where it goes, by dotted key."""

    target: str
    value: Any
    note: str = ""


@dataclass(frozen=True)
class Same:
    """A value that is dropped and makes no difference, and why."""

    why: str


Outcome: TypeAlias = Taken | Same | str
"""Where a value goes, or why it is dropped."""

NOT_SET = Same("off, as it is here unless it is set")

Rule: TypeAlias = Callable[[Any, Source], Outcome]


def as_number(value: Any) -> Any:
    """A number that was written as text ("1e-5") as a number; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() and value.strip().lstrip("+-").isdigit() else number


def to(target: str, change: Callable[[Any], Any] = as_number, *, unset: tuple[Any, ...] = (), note: str = "") -> Rule:
    """The value under another key, unless it is one that stands for none."""
    return lambda value, _: NOT_SET if value in unset else Taken(target, change(value), note)


def text_to(target: str) -> Rule:
    """The text under another key."""
    return to(target, lambda value: value, unset=("",))


def drop(why: str) -> Rule:
    """The value is not used here."""
    return lambda *_: why


def same(why: str) -> Rule:
    """The value is not used here, and makes no difference."""
    return lambda *_: Same(why)


def drop_unless(harmless: Any, why: str) -> Rule:
    """The value is not used here, which only matters where it is another one than `harmless`."""
    return lambda value, _: Same(f"{_yaml(harmless)} is how it is here") if value == harmless else why


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _attn_kind(value: Any, source: Source) -> Outcome:
    sparse = source.number("training", "vsa", "sparsity") > 0
    return Taken("method_config.attn_kind", value) if sparse else Same("FastVideo attends densely without a sparsity")


def _data_path(value: Any, _: Source) -> Outcome:
    paths = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, dict)) else []
    if len(paths) != 1 or (isinstance(value, dict) and value[paths[0]] != 1):
        return (
            "several folders or repeats: write data_path as a list of {path, weight}, where a weight is a folder's share of "
            "the batches; or put all parquet files into one folder"
        )
    return Taken("training.data_path", paths[0]) if paths[0] else NOT_SET


def _num_frames(value: Any, source: Source) -> Outcome:
    if not value:
        return NOT_SET
    if _lengths_differ(source):
        return "num_latent_t is another length, and FastVideo trains on that"
    return Taken("training.num_frames", as_number(value))


def _num_latent_t(value: Any, source: Source) -> Outcome:
    if not value:
        return NOT_SET
    if source.number("training", "data", "num_frames") and not _lengths_differ(source):
        return Same("follows from num_frames")
    return Taken("training.num_latent_t", as_number(value), "data is used in its own length")


def _lengths_differ(source: Source) -> bool:
    frames = source.number("training", "data", "num_frames")
    latent = source.number("training", "data", "num_latent_t")
    return bool(frames and latent) and (frames - 1) // LATENT_FRAME[source.family] + 1 != latent


def _scheduler(target: str) -> Rule:
    names = {"cosine_with_min_lr": "cosine"}
    return lambda value, _: Taken(target, names.get(value, value) if isinstance(value, str) else value)


def _of_schedule(name: str, target: str) -> Rule:
    """A setting that only some schedules read."""

    def rule(value: Any, source: Source) -> Outcome:
        if not value:
            return NOT_SET
        used = {source.get("training", "optimizer", "lr_scheduler"), source.get("method", "fake_score_lr_scheduler")}
        readers = {"cosine_with_min_lr"} if name == "min_lr_ratio" else set(SCHEDULE_USERS[name])
        return Taken(target, as_number(value)) if used & readers else Same("the schedule does not use it")

    return rule


def _trackers(value: Any, _: Source) -> Outcome:
    names = [name for name in value if name != "none"] if isinstance(value, list) else value
    return Taken("training.trackers", names) if names else NOT_SET


def _checkpointing(value: Any, source: Source) -> Outcome:
    return Taken("training.enable_gradient_checkpointing_type", value)


def _finetune_only(target: str) -> Rule:
    def rule(value: Any, source: Source) -> Outcome:
        used = {"logit_normal": ("logit_mean", "logit_std"), "mode": ("mode_scale",)}
        drawn = _weighting(source.get("training", "model", "weighting_scheme"), source)
        if not isinstance(drawn, Taken) or target.rpartition(".")[2] not in used.get(drawn.value, ()):
            return Same("it plays no part in how noise levels are drawn")
        return Taken(target, as_number(value))

    return rule


def _weighting(value: Any, source: Source) -> Outcome:
    if source.method != "finetune":
        return Same(f"{source.method} draws noise levels uniformly")
    if source.family == "ltx":
        return Same("FastVideo's LTX models draw noise levels in their own way")
    known = value in ("uniform", "logit_normal", "mode")
    return Taken("method_config.timestep_sampling", value if known else "uniform")


def _rollout_mode(value: Any, _: Source) -> Outcome:
    names = {"sim": "simulate", "data": "data_latent", "vae_latent": "data_latent"}
    return Taken("method_config.rollout_mode", names.get(value, value) if isinstance(value, str) else value)


def _cfg_uncond(value: Any, _: Source) -> Outcome:
    return drop_unless("negative_prompt", "guidance uses the encoded negative prompt, as at inference")(value, _)


def _lora(key: str) -> Rule:
    def rule(value: Any, source: Source) -> Outcome:
        if not source.get("models", "student", "lora", "enable"):
            return Same("lora.enable is not true")
        if key != "targets":
            return Taken(f"roles.student.lora.{key}", as_number(value))
        if not isinstance(value, list):
            return "it is no list of names"
        here = [{"to_out": "to_out.0"}.get(name, name) for name in value if name in LORA_TARGETS]
        lost = [str(name) for name in value if name not in LORA_TARGETS]
        note = f"{', '.join(lost)} is no layer of the network as diffusers has it" if lost else ""
        return Taken("roles.student.lora.targets", here, note) if here else note

    return rule


LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out")


def _role_flow_shift(value: Any, source: Source) -> Outcome:
    if source.get("pipeline", "flow_shift") is not None:
        return "pipeline.flow_shift counts: there is one shift for training, sampling and export"
    return Taken("pipeline_config.flow_shift", as_number(value), "one shift for training, sampling and export")


def _validation_steps(value: Any, _: Source) -> Outcome:
    steps = as_number(value)
    return Taken("training.validation_steps", steps) if steps else Taken("training.log_validation", False)


def _many_steps(target: str) -> Rule:
    """How validation samples, where the student is no few-step one."""
    few = "the student is sampled as it is distilled: with dmd_denoising_steps, without guidance"
    return lambda value, source: few if source.method == "dmd2" else Taken(target, as_number(value))


def _sampling_timesteps(value: Any, source: Source) -> Outcome:
    if value == source.get("method", "dmd_denoising_steps"):
        return Same("they are dmd_denoising_steps, which validation takes")
    return "validation samples the student with dmd_denoising_steps, others with validation_sampling_steps"


_OPTIMIZER = "training.optimizer"
_ONE_MODEL = "every role's weights come from its path"
_DENSE = "attention is dense, and torch chooses its kernels"
_HERE = "validation samples the file's prompts with the family's own pipeline"

RULES: Mapping[str, Rule] = {
    "models.student._target_": lambda _, source: Taken("recipe.family", source.family),
    "models.*._target_": same("the role's family, which is recipe.family where the role names none"),
    "models.*.init_from": to("roles.*.path", lambda value: value),
    "models.*.trainable": to("roles.*.trainable", lambda value: value),
    "models.*.disable_custom_init_weights": same(_ONE_MODEL),
    "models.*.transformer_override_safetensor": drop(
        "OTHER WEIGHTS than init_from's: export them as a diffusers folder and name that as the role's path"
    ),
    "models.*.attention_backend": drop(_DENSE),
    "models.*.flow_shift": _role_flow_shift,
    "models.*.enable_gradient_checkpointing_type": _checkpointing,
    "models.*.train_audio": same("pipeline_config.streams says it"),
    "models.*.timestep_uniform_prob": drop_unless(0.1, "shifted_logit_normal draws a tenth of the levels uniformly"),
    "models.student.lora.enable": same("a rank turns adapters on"),
    "models.student.lora.rank": _lora("rank"),
    "models.student.lora.alpha": _lora("alpha"),
    "models.student.lora.target_modules": _lora("targets"),
    "method._target_": lambda _, source: Taken("recipe.method", source.method),
    "method.rollout_mode": _rollout_mode,
    "method.generator_update_interval": to("method_config.generator_update_interval"),
    "method.real_score_guidance_scale": to("method_config.real_score_guidance_scale"),
    "method.dmd_denoising_steps": to("method_config.dmd_denoising_steps"),
    "method.warp_denoising_step": to("method_config.warp_denoising_step"),
    "method.min_timestep_ratio": to("method_config.min_timestep_ratio"),
    "method.max_timestep_ratio": to("method_config.max_timestep_ratio"),
    "method.fake_score_learning_rate": to("roles.critic.learning_rate"),
    "method.fake_score_betas": to("roles.critic.betas"),
    "method.fake_score_lr_scheduler": _scheduler("roles.critic.lr_scheduler"),
    "method.cfg_uncond.*": _cfg_uncond,
    "method.attn_kind": _attn_kind,
    "training.distributed.num_gpus": to("training.num_gpus"),
    "training.distributed.sp_size": to("training.sequence_parallel", unset=(0, -1, 1)),
    "training.distributed.tp_size": drop_unless(1, "not offered"),
    "training.distributed.hsdp_replicate_dim": to("training.hsdp_replicate_dim", unset=(0, -1)),
    "training.distributed.hsdp_shard_dim": to("training.hsdp_shard_dim", unset=(0, -1)),
    "training.distributed.pin_cpu_memory": drop(
        "only networks that are not trained may lie in host memory: frozen_cpu_offload"
    ),
    "training.data.data_path": _data_path,
    "training.data.preprocessed_data_type": same("the data set says what it holds"),
    "training.data.train_batch_size": to("training.train_batch_size"),
    "training.data.dataloader_num_workers": to("training.dataloader_num_workers"),
    "training.data.training_cfg_rate": to("training.training_cfg_rate"),
    "training.data.seed": to("training.seed"),
    "training.data.num_height": to("training.num_height", unset=(0,)),
    "training.data.num_width": to("training.num_width", unset=(0,)),
    "training.data.num_frames": _num_frames,
    "training.data.num_latent_t": _num_latent_t,
    f"{_OPTIMIZER}.learning_rate": to("training.learning_rate"),
    f"{_OPTIMIZER}.betas": to("training.betas"),
    f"{_OPTIMIZER}.weight_decay": to("training.weight_decay"),
    f"{_OPTIMIZER}.lr_scheduler": _scheduler("training.lr_scheduler"),
    f"{_OPTIMIZER}.lr_warmup_steps": _of_schedule("lr_warmup_steps", "training.lr_warmup_steps"),
    f"{_OPTIMIZER}.lr_num_cycles": _of_schedule("lr_num_cycles", "training.lr_num_cycles"),
    f"{_OPTIMIZER}.lr_power": _of_schedule("lr_power", "training.lr_power"),
    f"{_OPTIMIZER}.min_lr_ratio": _of_schedule("min_lr_ratio", "training.min_lr_ratio"),
    "training.loop.max_train_steps": to("training.max_train_steps"),
    "training.loop.gradient_accumulation_steps": to("training.gradient_accumulation_steps"),
    "training.checkpoint.output_dir": text_to("training.output_dir"),
    "training.checkpoint.resume_from_checkpoint": lambda value, _: (
        "FastVideo's training state cannot be resumed here: start from its weights" if value else NOT_SET
    ),
    "training.checkpoint.training_state_checkpointing_steps": to("training.training_state_checkpointing_steps"),
    "training.checkpoint.checkpoints_total_limit": to("training.checkpoints_total_limit"),
    "training.tracker.trackers": _trackers,
    "training.tracker.entity": drop("set WANDB_ENTITY instead"),
    "training.tracker.project_name": text_to("training.tracker_project_name"),
    "training.tracker.run_name": text_to("training.wandb_run_name"),
    "training.vsa.sparsity": to("training.VSA_sparsity", unset=(0.0,)),
    "training.vsa.decay_rate": to("training.VSA_decay_rate"),
    "training.vsa.decay_interval_steps": to("training.VSA_decay_interval_steps"),
    "training.vsa.*": drop("tiles are of 4 x 4 x 4 tokens, and buffers are torch's"),
    "training.model.weighting_scheme": _weighting,
    "training.model.logit_mean": _finetune_only("method_config.logit_mean"),
    "training.model.logit_std": _finetune_only("method_config.logit_std"),
    "training.model.mode_scale": _finetune_only("method_config.mode_scale"),
    "training.model.precondition_outputs": drop_unless(False, "the loss is that of the network's own output"),
    "training.model.moba_config": drop(_DENSE),
    "training.model.enable_gradient_checkpointing_type": _checkpointing,
    "training.dit_precision": drop_unless("fp32", "trained weights are float32; mixed_precision says what computes"),
    "training.model_path": same(_ONE_MODEL),
    "callbacks.*._target_": same("the name says it"),
    "callbacks.grad_clip.max_grad_norm": to("training.max_grad_norm"),
    "callbacks.grad_clip.log_grad_norms": same("grad_norm/<role> is always logged"),
    "callbacks.ema.decay": to("callbacks.ema.decay"),
    "callbacks.ema.start_iter": to("callbacks.ema.start_step"),
    "callbacks.validation.dataset_file": text_to("training.validation_dataset_file"),
    "callbacks.validation.every_steps": _validation_steps,
    "callbacks.validation.sampling_steps": _many_steps("training.validation_sampling_steps"),
    "callbacks.validation.guidance_scale": _many_steps("training.validation_guidance_scale"),
    "callbacks.validation.sampling_timesteps": _sampling_timesteps,
    "callbacks.validation.num_frames": drop("prompts name their own size, else it is training.num_frames"),
    "callbacks.validation.output_dir": same("videos go into the run's folder"),
    "callbacks.validation.pipeline_target": same(_HERE),
    "callbacks.validation.*": drop(_HERE),
    "pipeline.flow_shift": to("pipeline_config.flow_shift", note="one shift for training, sampling and export"),
    "pipeline": drop("the role's path brings the pipeline's own configuration"),
    "pipeline.*": drop("the role's path brings the pipeline's own configuration"),
}
"""Dotted key -> rule; `*` is any one part, and at the end also what is below it."""

CALLBACKS = {"GradNormClipCallback": "grad_clip", "ValidationCallback": "validation", "EMACallback": "ema"}
"""FastVideo's callback class -> the name under which rules know it."""
