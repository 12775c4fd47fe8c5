"""Options of other trainers by name, and what they are called here: data for the hint beside an unknown key.

The names are those of FastVideo (its flags, and the keys of its YAML files), FastGen and musubi-tuner; names that mean the
same here and there are not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastvideo_core.config.training import TrainingArgs

RENAMED: Mapping[str, Mapping[str, str | tuple[str, str]]] = {
    "FastVideo": {
        "pretrained_model_name_or_path": "roles.student.path",
        "model_path": "roles.student.path",
        "dit_model_name_or_path": "roles.student.path",
        "init_from": "roles.student.path",
        "generator_model_path": "roles.student.path",
        "real_score_model_path": "roles.teacher.path",
        "fake_score_model_path": "roles.critic.path",
        "fake_score_learning_rate": "roles.critic.learning_rate",
        "fake_score_betas": "roles.critic.betas",
        "fake_score_lr_scheduler": "roles.critic.lr_scheduler",
        "generator_update_interval": "method_config.generator_update_interval",
        "dfake_gen_update_ratio": "method_config.generator_update_interval",
        "dmd_denoising_steps": "method_config.dmd_denoising_steps",
        "denoising_step_list": "method_config.dmd_denoising_steps",
        "sampling_timesteps": "method_config.dmd_denoising_steps",
        "warp_denoising_step": "method_config.warp_denoising_step",
        "real_score_guidance_scale": "method_config.real_score_guidance_scale",
        "min_timestep_ratio": "method_config.min_timestep_ratio",
        "max_timestep_ratio": "method_config.max_timestep_ratio",
        "rollout_mode": "method_config.rollout_mode",
        "simulate_generator_forward": (
            "method_config.rollout_mode",
            "simulate where it was on, data_latent where it was off",
        ),
        "attn_kind": "method_config.attn_kind",
        "weighting_scheme": (
            "method_config.timestep_sampling",
            "and method_config.loss_weighting: two separate choices",
        ),
        "logit_mean": "method_config.logit_mean",
        "logit_std": "method_config.logit_std",
        "mode_scale": "method_config.mode_scale",
        "flow_shift": "pipeline_config.flow_shift",
        "negative_prompt": "pipeline_config.negative_prompt",
        "ltx2_first_frame_conditioning_p": "pipeline_config.first_frame_probability",
        "ema_decay": "callbacks.ema.decay",
        "ema_start_step": "callbacks.ema.start_step",
        "use_ema": ("callbacks.ema", "naming the callback turns it on"),
        "start_iter": "callbacks.ema.start_step",
        "lora_rank": "roles.student.lora.rank",
        "lora_alpha": "roles.student.lora.alpha",
        "lora_target_modules": "roles.student.lora.targets",
        "target_modules": "roles.student.lora.targets",
        "lora_training": ("roles.student.lora", "naming a rank turns it on"),
        "vsa_sparsity": "training.VSA_sparsity",
        "sparsity": "training.VSA_sparsity",
        "project_name": "training.tracker_project_name",
        "run_name": "training.wandb_run_name",
        "dataset_file": "training.validation_dataset_file",
        "every_steps": "training.validation_steps",
        "sampling_steps": "training.validation_sampling_steps",
        "grad_clip": "training.max_grad_norm",
        "validation": ("training.validation_steps", "with log_validation and validation_dataset_file"),
        "selective_checkpointing": ("training.enable_gradient_checkpointing_type", "ops or block_skip"),
        "weight_only_checkpointing_steps": (
            "training.training_state_checkpointing_steps",
            "every checkpoint can be exported",
        ),
        "distributed": ("training", "its keys stand directly under training"),
        "data": ("training", "its keys stand directly under training"),
        "loop": ("training", "its keys stand directly under training"),
        "checkpoint": ("training", "its keys stand directly under training"),
        "tracker": ("training", "its keys stand directly under training"),
        "vsa": ("training", "its keys stand directly under training"),
        "models": "roles",
        "method": "recipe.method",
        "pipeline": "pipeline_config",
        "pipeline_target": ("recipe.family", "the family knows its pipeline"),
        "workload_type": ("recipe.family", "the family knows what it makes"),
    },
    "FastGen": {
        "net": "roles.student",
        "teacher": "roles.teacher",
        "pretrained_model_path": "roles.teacher.path",
        "pretrained_student_net_path": "roles.student.path",
        "net_optimizer": ("training.learning_rate", "with betas and weight_decay"),
        "net_scheduler": "training.lr_scheduler",
        "fake_score_optimizer": ("roles.critic.learning_rate", "with betas and weight_decay"),
        "fake_score_scheduler": "roles.critic.lr_scheduler",
        "discriminator_optimizer": "method_config.discriminator_learning_rate",
        "lr": ("training.learning_rate", "or roles.<role>.learning_rate for one role"),
        "eps": "training.adam_epsilon",
        "optim_type": "training.optimizer",
        "warm_up_steps": "training.lr_warmup_steps",
        "guidance_scale": "method_config.real_score_guidance_scale",
        "student_update_freq": "method_config.generator_update_interval",
        "gan_loss_weight_gen": "method_config.adversarial_weight",
        "gan_r1_reg_weight": "method_config.r1_weight",
        "gan_r1_reg_alpha": "method_config.r1_sigma",
        "t_list": ("method_config.dmd_denoising_steps", "times 1000"),
        "student_sample_steps": ("method_config.dmd_denoising_steps", "the whole schedule, as a list"),
        "student_sample_type": "pipeline_config.sampler_kind",
        "sample_t_cfg": "method_config",
        "time_dist_type": "method_config.timestep_sampling",
        "train_p_mean": "method_config.logit_mean",
        "train_p_std": "method_config.logit_std",
        "shift": "pipeline_config.flow_shift",
        "min_t": ("method_config.min_timestep_ratio", "a fraction of the noise axis"),
        "max_t": ("method_config.max_timestep_ratio", "a fraction of the noise axis"),
        "cond_dropout_prob": "training.training_cfg_rate",
        "precision": ("training.mixed_precision", "trained weights stay float32"),
        "precision_amp": "training.mixed_precision",
        "grad_norm": "training.max_grad_norm",
        "max_iter": "training.max_train_steps",
        "save_ckpt_iter": "training.training_state_checkpointing_steps",
        "validation_iter": "training.validation_steps",
        "logging_iter": "training.logging_steps",
        "visualize_teacher": "method_config.validate_teacher",
        "grad_accum_rounds": "training.gradient_accumulation_steps",
        "batch_size": ("training.train_batch_size", "per process"),
        "batch_size_global": ("training.train_batch_size", "per process and accumulation round"),
        "fsdp_cpu_offload": "training.frozen_cpu_offload",
        "fsdp_sharding_group_size": "training.hsdp_shard_dim",
        "save_dir": "training.output_dir",
        "resume": "training.resume_from_checkpoint",
        "project": "training.tracker_project_name",
        "log_config": "training.trackers",
        "trainer": ("training", "its keys stand directly under training"),
        "model_class": "recipe.method",
        "dataloader_train": ("training.data_path", "a folder that `fastvideo-distill preprocess` has written"),
        "input_shape": ("training.num_height", "with num_width and num_frames, in pixels"),
    },
    "musubi-tuner": {
        "dit": ("roles.student.path", "a folder with the whole pipeline"),
        "vae": ("roles.student.path", "part of the pipeline's folder"),
        "t5": ("roles.student.path", "part of the pipeline's folder"),
        "text_encoder1": ("roles.student.path", "part of the pipeline's folder"),
        "task": "recipe.family",
        "dataset_config": ("training.data_path", "a folder that `fastvideo-distill preprocess` has written"),
        "network_dim": "roles.student.lora.rank",
        "network_alpha": ("roles.student.lora.alpha", "it is the rank where it is left out"),
        "network_module": ("roles.student.lora", "naming a rank turns it on"),
        "network_args": ("roles.student.lora.targets", "include_patterns and exclude_patterns are not offered"),
        "network_weights": ("roles.student.path", "a checkpoint of adapters"),
        "discrete_flow_shift": "pipeline_config.flow_shift",
        "timestep_sampling": "method_config.timestep_sampling",
        "optimizer_type": "training.optimizer",
        "optimizer_args": ("training.weight_decay", "and training.betas, training.adam_epsilon"),
        "lr_scheduler_type": "training.lr_scheduler",
        "lr_scheduler_num_cycles": "training.lr_num_cycles",
        "lr_scheduler_power": "training.lr_power",
        "lr_scheduler_min_lr_ratio": "training.min_lr_ratio",
        "gradient_checkpointing": "training.enable_gradient_checkpointing_type",
        "blocks_to_swap": ("training.frozen_cpu_offload", "for frozen roles, with several processes"),
        "full_bf16": ("training.mixed_precision", "trained weights stay float32"),
        "compile": "training.enable_torch_compile",
        "dynamo_backend": "training.enable_torch_compile",
        "max_data_loader_n_workers": "training.dataloader_num_workers",
        "max_train_epochs": ("training.max_train_steps", "counted in steps"),
        "save_every_n_steps": "training.training_state_checkpointing_steps",
        "save_every_n_epochs": ("training.training_state_checkpointing_steps", "counted in steps"),
        "save_last_n_steps": ("training.checkpoints_total_limit", "a number of checkpoints"),
        "save_last_n_epochs": ("training.checkpoints_total_limit", "a number of checkpoints"),
        "save_last_n_steps_state": ("training.checkpoints_total_limit", "a number of checkpoints"),
        "save_last_n_epochs_state": ("training.checkpoints_total_limit", "a number of checkpoints"),
        "sample_prompts": "training.validation_dataset_file",
        "sample_every_n_steps": "training.validation_steps",
        "sample_every_n_epochs": ("training.validation_steps", "counted in steps"),
        "log_with": "training.trackers",
        "log_tracker_name": "training.tracker_project_name",
        "logging_dir": ("training.output_dir", "everything of a run is in its folder"),
        "output_name": ("training.output_dir", "checkpoints have names of their own"),
    },
}
"""Trainer -> its name -> the dotted key here that does the same or comes nearest, and what is different about it."""

NOT_OFFERED: Mapping[str, Mapping[str, str]] = {
    "FastVideo": {
        "sequence and tensor parallelism are not offered; hsdp_shard_dim and hsdp_replicate_dim are": (
            "sp_size tp_size train_sp_batch_size"
        ),
        "attention is dense, and torch chooses its kernels": (
            "attention_backend moba_config moba_config_path VSA_decay_rate VSA_decay_interval_steps VSA_tile_size "
            "VSA_cache_tile_buf cache_tile_buf enable_bsa bsa_sparsity bsa_cdf_threshold bsa_chunk_q bsa_chunk_k "
            "attn_qat_infer transformer_quant quant_config"
        ),
        "a role's path is a whole pipeline, and its weights are always those that train": (
            "disable_custom_init_weights init_weights_from_safetensors init_weights_from_safetensors_2 "
            "transformer_override_safetensor override_transformer_cls_name override_pipeline_cls_name "
            "override_text_encoder_safetensors override_text_encoder_quant lora_path lora_nickname revision trust_remote_code"
        ),
        "trained weights are float32, and mixed_precision says what computes": (
            "dit_precision master_weight_type precondition_outputs disable_autocast"
        ),
        "only frozen roles are kept in host memory: training.frozen_cpu_offload": (
            "pin_cpu_memory dit_cpu_offload dit_layerwise_offload text_encoder_cpu_offload image_encoder_cpu_offload "
            "vae_cpu_offload use_fsdp_inference use_cpu_offload offload_training_state unload_pipeline_after_validation"
        ),
        "sharding follows from the processes: hsdp_shard_dim and hsdp_replicate_dim": (
            "fsdp_sharding_strategy fsdp_sharding_startegy"
        ),
        "processes are started by training.num_gpus, torchrun or srun": (
            "distributed_executor_backend dist_timeout master_port mode inference_mode torch_compile_kwargs"
        ),
        "data is batched by its own shapes": "group_frame group_resolution preprocessed_data_type",
        "runs are counted in steps, and learning rates are taken as they stand": "num_train_epochs scale_lr",
        "causal and block-wise rollouts are not offered": (
            "num_frame_per_block num_frames_per_block independent_first_frame enable_gradient_masking "
            "gradient_mask_last_n_frames same_step_across_blocks last_step_only context_noise chunk_size "
            "enable_gradient_in_rollout start_gradient_frame local_attn_size sink_size"
        ),
        "it belongs to a method that no plug-in here offers": (
            "not_apply_cfg_solver num_euler_timesteps multi_phased_distill_schedule pred_decay_weight pred_decay_type "
            "hunyuan_teacher_disable_cfg scheduler_type linear_quadratic_threshold linear_range distill_cfg "
            "teacher_path_cache teacher_inference_steps student_sample_type dmd_score_r_value discrete_cd_N"
        ),
        "guidance uses the negative prompt as at inference: pipeline_config.negative_prompt": "cfg_uncond",
        "validation samples the prompts of validation_dataset_file": (
            "validation_preprocessed_path prompt_txt run_at_start num_videos_per_prompt overlay_actions "
            "use_validation_media_conditioning keyboard_value_scale metrics"
        ),
        "what is logged is in metrics.jsonl": "log_visualization visualization_steps log_grad_norms entity",
        "it belongs to inference": (
            "output_type ltx2_vae_tiling ltx2_vae_spatial_tile_size_in_pixels ltx2_vae_spatial_tile_overlap_in_pixels "
            "ltx2_vae_temporal_tile_size_in_frames ltx2_vae_temporal_tile_overlap_in_frames ltx2_initial_latent_path "
            "enable_stage_verification cache_dir validate_cache_structure"
        ),
    },
    "FastGen": {
        "sharding follows from training.num_gpus": "ddp fsdp fsdp_meta_init fsdp_min_num_params precision_fsdp "
        "add_teacher_to_fsdp_dict ddp_find_unused_parameters",
        "bfloat16 needs no scaling": "grad_scaler_enabled grad_scaler_init_scale grad_scaler_growth_interval",
        "encoders run when data is preprocessed": "enable_preprocessors precision_amp_enc precision_amp_infer",
        "checkpoints are folders of the run": "checkpointer use_s3 s3_container s3_credential pretrained_ckpt_path "
        "pretrained_ckpt_key_map",
        "log in with `wandb login`, or set WANDB_MODE": "wandb_credential wandb_mode",
        "the discriminator's heads are made to fit the features": "discriminator feature_indices disc_type",
        "the heads follow the critic's schedule": "discriminator_scheduler",
        "every term draws noise of its own": "gan_use_same_t_noise",
        "the family says what its networks predict": "fake_score_pred_type",
        "no plug-in here has such an option": (
            "f_distill f_div ratio_lower ratio_upper ratio_normalization ratio_ema_rate bin_num skip_layers log_t_df "
            "cond_keys_no_dropout augment_pipe global_vars global_vars_val load_student_weights ct_schedule "
            "forced_weight_norm ema_halflife_kimg ema_rampup_ratio device benchmark deterministic tf32_enabled cudnn group "
            "val_seed num_samples save_images min_ckpt max_ckpt samples_dir offload_module_in_decoding dataloader_val eval"
        ),
    },
    "musubi-tuner": {
        "half precision is bfloat16: training.mixed_precision": "full_fp16",
        "weights are not quantised for training": "fp8_base fp8_scaled fp8_t5 fp8_llm",
        "torch chooses the attention's kernels": "sdpa flash_attn flash3 sage_attn xformers split_attn",
        "only frozen roles are kept in host memory: training.frozen_cpu_offload": (
            "gradient_checkpointing_cpu_offload use_pinned_memory_for_block_swap block_swap_h2d_only block_swap_ring_size "
            "img_in_txt_in_offloading offload_inactive_dit vae_cache_cpu"
        ),
        "finetuning uses the whole noise axis": "min_timestep max_timestep num_timestep_buckets preserve_distribution_shape "
        "sigmoid_scale show_timesteps",
        "adapters have no such option": "network_dropout dim_from_weights scale_weight_norms base_weights "
        "base_weights_multiplier",
        "every checkpoint holds the whole state": "save_state save_state_on_train_end save_precision resume_from_huggingface",
        "nothing is uploaded": "huggingface_repo_id huggingface_token huggingface_path_in_repo huggingface_repo_type "
        "huggingface_repo_visibility save_state_to_huggingface async_upload",
        "exports carry the run's own description": "no_metadata metadata_title metadata_author metadata_description "
        "metadata_license metadata_tags metadata_reso metadata_arch training_comment",
        "log in with `wandb login`; a key does not belong into a file": "wandb_api_key",
        "the pipeline's own configuration says it": "dit_dtype vae_dtype text_encoder_dtype dit_in_channels vae_tiling "
        "vae_chunk_size vae_spatial_tile_sample_min_size text_encoder2 clip image_encoder force_v2_1_time_embedding "
        "dit_high_noise timestep_boundary one_frame disable_numpy_memmap",
        "compiling has no further options": "compile_backend compile_mode compile_dynamic compile_fullgraph "
        "compile_cache_size_limit dynamo_mode dynamo_fullgraph dynamo_dynamic cuda_allow_tf32 cuda_cudnn_benchmark",
        "schedules span the whole run": "lr_decay_steps lr_scheduler_timescale lr_scheduler_args",
        "processes are started by training.num_gpus, torchrun or srun": (
            "ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph persistent_data_loader_workers"
        ),
        "the folder has metrics.jsonl": "log_prefix log_config log_tracker_config sample_at_first config_file",
    },
}
"""Trainer -> why it is not offered here -> its names."""


OF_METHOD: Mapping[str, tuple[str, ...]] = {
    "dmd2": (
        "roles.teacher",
        "roles.critic",
        "method_config.adversarial_weight",
        "method_config.discriminator_learning_rate",
        "method_config.dmd_denoising_steps",
        "method_config.generator_update_interval",
        "method_config.max_timestep_ratio",
        "method_config.min_timestep_ratio",
        "method_config.r1_",
        "method_config.real_score_guidance_scale",
        "method_config.rollout_mode",
        "method_config.validate_teacher",
        "method_config.warp_denoising_step",
    ),
    "finetune": ("method_config.logit_", "method_config.mode_scale", "method_config.timestep_sampling"),
}
"""Method -> beginnings of the targets that only its runs have."""

_SECTIONS = ("training", "roles", "recipe.method", "pipeline_config", "method_config")


@dataclass(frozen=True)
class Foreign:
    """What another trainer means by a name.

    Attributes:
        trainer: whose name it is; empty for an option of ours that stands in another section.
        target: the dotted key here; empty where it is not offered.
        note: what is different, or why it is not offered.
    """

    trainer: str
    target: str
    note: str

    def fix(self, name: str) -> str:
        """What to do about the name."""
        method = next((method for method, targets in OF_METHOD.items() if self.target.startswith(targets)), None)
        notes = [*([self.note] if self.note else []), *([] if method is None else [f"of the method {method}"])]
        note = f" ({'; '.join(notes)})" if notes else ""
        if not self.trainer:
            return f"it belongs to another section: {self.target}"
        if not self.target:
            return f"remove it: {self.trainer}'s {name} is not offered here{note}"
        return f"{self.trainer}'s {name} is {self.target} here{note}"


def foreign_name(key: object, section: str = "training") -> Foreign | None:
    """What a key means that is not known where it stands; None when no trainer here or elsewhere has it.

    Args:
        section: where it stands, by dotted key; whole sections of other trainers are known at the top and in `training` alone.
    """
    name = _plain(str(key))
    if name in _OWN:
        return Foreign("", _OWN[name], "")
    found = _FOREIGN.get(name)
    inside = section not in ("run.yaml", "training")
    return None if inside and found is not None and found.target in _SECTIONS else found


def is_fastvideo(data: Any) -> bool:
    """Whether a YAML file's data is a run of FastVideo's trainer: models and a method by `_target_`."""
    if not isinstance(data, Mapping) or "recipe" in data:
        return False
    models = data.get("models")
    sections = [data.get("method"), *(models.values() if isinstance(models, Mapping) else ())]
    return any(isinstance(section, Mapping) and "_target_" in section for section in sections)


def _plain(name: str) -> str:
    return name.lower().lstrip("-").replace("-", "_")


def _table() -> dict[str, Foreign]:
    table: dict[str, Foreign] = {}
    for trainer, names in RENAMED.items():
        for name, value in names.items():
            target, note = (value, "") if isinstance(value, str) else value
            table.setdefault(_plain(name), Foreign(trainer, target, note))
    for trainer, reasons in NOT_OFFERED.items():
        for note, listed in reasons.items():
            for name in listed.split():
                table.setdefault(_plain(name), Foreign(trainer, "", note))
    return table


_OWN = {_plain(name): f"training.{name}" for name in TrainingArgs.model_fields}
_OWN |= {name: f"roles.<role>.{name}" for name in ("trainable", "checkpoint_role", "lora")}
_OWN |= {name: f"callbacks.{name}" for name in ("ema", "grad_norm", "throughput", "profiler", "early_stop")}
_OWN["sampler_kind"] = "pipeline_config.sampler_kind"
_FOREIGN = _table()
