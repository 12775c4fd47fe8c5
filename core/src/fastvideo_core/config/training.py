"""The `training:` section: flat, with the names that FastVideo users know."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Strict, Tag
from pydantic_core import PydanticCustomError

from fastvideo_core.config import limits
from fastvideo_core.config.base import Factor, PathText, StrictModel, StrTuple

LRSchedulerName = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
OnError = Literal["error", "skip"]

Steps = Annotated[int, Field(ge=1, le=limits.STEPS)]
StepsOrZero = Annotated[int, Field(ge=0, le=limits.STEPS)]
Samples = Annotated[int, Field(ge=1, le=limits.SAMPLES)]
Processes = Annotated[int, Field(ge=1, le=limits.PROCESSES)]
Frames = Annotated[int, Field(ge=1, le=limits.FRAMES)]
Pixels = Annotated[int, Field(ge=1, le=limits.PIXELS)]
FactorOrZero = Annotated[float, Field(ge=0, le=limits.FACTOR)]
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
SamplingStepCount = Annotated[int, Field(ge=1, le=limits.SAMPLING_STEPS)]


def _read(kind: type[int] | type[float], written: Any, *examples: str, alone: bool = True) -> BeforeValidator:
    """Reads "8,50", and a number that stands `alone`, as a list; the JSON schema is of what else may be `written`."""

    def read(value: Any) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and alone:
            return [value]
        if not isinstance(value, str):
            return value  # for the field's own check
        try:
            return [kind(part) for part in value.strip().removeprefix("[").removesuffix("]").split(",")]
        except ValueError:
            raise PydanticCustomError("numbers_in_text", "not comma-separated numbers") from None

    return BeforeValidator(read, json_schema_input_type=written | Annotated[str, Field(examples=list(examples))])


def _unique(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("the same tracker is named twice")
    return value


_Pair = tuple[FractionBelowOne, FractionBelowOne]
_Counts = Annotated[tuple[SamplingStepCount, ...], Strict(False), Field(min_length=1)]
_Scales = Annotated[tuple[FactorOrZero, ...], Strict(False), Field(min_length=1)]

Betas = Annotated[_Pair, Strict(False), _read(float, _Pair, "0.9,0.999", alone=False)]
SamplingSteps = Annotated[_Counts, _read(int, SamplingStepCount | _Counts, "8", "8,50")]
GuidanceScales = Annotated[_Scales, _read(float, FactorOrZero | _Scales, "5.0", "1.0,5.0")]
Trackers = Annotated[tuple[Literal["wandb", "tensorboard"], ...], Strict(False), AfterValidator(_unique)]


class DataSource(StrictModel):
    """One of several data sets of a run."""

    path: PathText = Field(description="Parquet data set (folder or file).")
    weight: Factor | None = Field(None, description="Its share of the batches, among the sources' weights; null is 1.")
    loss_weight: FactorOrZero = Field(1.0, description="What the losses of its batches are multiplied by.")


_Sources = Annotated[tuple[DataSource, ...], Strict(False), Field(min_length=1), Tag("a list")]
DataPath = Annotated[
    Annotated[PathText, Tag("a path")] | _Sources,
    Discriminator(lambda path: "a list" if type(path) in (list, tuple) else "a path"),
]


class TrainingArgs(StrictModel):
    """Everything about the training loop that is neither the family's nor the method's."""

    seed: int = Field(0, ge=0, lt=2**63, description="Every random stream of the run derives from it.")
    output_dir: PathText = Field(description="Folder of the run: its config, metrics.jsonl, checkpoints, videos.")
    data_path: DataPath | None = Field(None, description="Parquet data set (folder or file), or a list of several.")

    max_train_steps: Steps = Field(description="Number of optimizer steps, counted from the start of training.")
    train_batch_size: Samples = Field(
        1, description="Samples in one forward pass, per process or group of `sequence_parallel`."
    )
    gradient_accumulation_steps: Samples = Field(1, description="Forward and backward passes per optimizer step.")
    dataloader_num_workers: int = Field(0, ge=0, le=limits.THREADS, description="Threads that read ahead; 0 is none.")
    num_gpus: Processes = Field(1, description="Processes of the run, one per GPU (on CPU: just processes).")
    sequence_parallel: Processes = Field(
        1, description="Processes that share each sample, each with its part of the tokens; divides num_gpus."
    )

    optimizer: Literal["adamw", "muon", "adamw8bit"] = Field(
        "adamw",
        description="muon: orthogonal updates of the blocks' matrices, AdamW for the rest; adamw8bit: AdamW with moments of "
        "one byte (bitsandbytes); both on one process only.",
    )
    learning_rate: FactorOrZero = Field(1e-5, description="Peak learning rate of every trainable role.")
    betas: Betas = Field((0.9, 0.999), description="AdamW's decay rates of the first and second moment.")
    adam_epsilon: Factor = Field(1e-8, description="AdamW's term against division by zero.")
    weight_decay: FactorOrZero = Field(0.0, description="AdamW's decoupled weight decay.")
    lr_scheduler: LRSchedulerName = Field("constant", description="How the learning rate moves over the run.")
    lr_warmup_steps: StepsOrZero = Field(0, description="Steps of linear warm-up; not for `constant`.")
    lr_num_cycles: Steps = Field(1, description="Number of restarts' cycles of `cosine_with_restarts`.")
    lr_power: Factor = Field(1.0, description="Exponent of `polynomial`.")
    min_lr_ratio: Fraction = Field(0.0, description="Fraction of the learning rate at which a decaying schedule ends.")
    max_grad_norm: FactorOrZero = Field(1.0, description="Norm that a role's gradients are clipped to; 0 is none.")

    mixed_precision: Literal["no", "bf16"] = Field("no", description="bf16: compute in bfloat16, keep float32 weights.")
    enable_gradient_checkpointing_type: Literal["full", "ops", "block_skip"] | None = Field(
        None,
        description="Less memory for recomputing trained blocks in the backward pass: `full` all of every block, `ops` all "
        "but matrix products and attention, `block_skip` all of every second block. Null recomputes nothing.",
    )
    offload_activations: bool = Field(False, description="Keep what is needed to recompute blocks in host memory.")
    enable_torch_compile: bool = Field(False, description="Compile every block with torch.compile.")
    hsdp_shard_dim: Processes | None = Field(None, description="Shards of one replica; null is all, or what is left.")
    hsdp_replicate_dim: Processes | None = Field(None, description="Replicas of the shards; null is 1 or what is left.")
    frozen_cpu_offload: bool = Field(False, description="Keep frozen networks in host memory, copied by blocks.")
    offload_blocks: StepsOrZero = Field(0, description="Keep frozen weights of the last N blocks in host memory.")
    sync_gradients_every_round: bool = Field(False, description="Reduce gradients each round: slower, in less memory.")

    training_state_checkpointing_steps: StepsOrZero = Field(0, description="Steps between checkpoints; 0: at the end.")
    checkpoints_total_limit: StepsOrZero = Field(0, description="Newest checkpoints that are kept; 0 keeps all.")
    resume_from_checkpoint: PathText | None = Field(None, description="`latest`, or a checkpoint to go on from.")
    resume_with_new_data: bool = Field(False, description="Go on with other data: its position alone is not kept.")
    resume_without_callbacks: StrTuple = Field((), description="Callbacks to drop, or start afresh, at resume.")
    async_checkpointing: bool = Field(True, description="Write checkpoints in the background, from a copy in memory.")
    on_checkpoint_error: OnError = Field("error", description="`error` ends a run that cannot save, `skip` goes on.")
    max_skipped_steps: StepsOrZero = Field(10, description="Steps in a row that may be skipped for not being finite.")
    on_bad_row: OnError = Field("error", description="Of data: `error` ends the run, `skip` logs it, takes another.")

    num_latent_t: Frames | None = Field(None, description="Latent frames used of each sample; null uses all.")
    num_height: Pixels | None = Field(None, description="Height without data, and of validation prompts without one.")
    num_width: Pixels | None = Field(None, description="Width without data, and of validation prompts without one.")
    num_frames: Frames | None = Field(None, description="Frames without data, and of validation prompts without one.")
    VSA_sparsity: FractionBelowOne = Field(0.0, description="Fraction of attention tiles that vsa leaves out at last.")
    VSA_decay_rate: float | None = Field(None, gt=0, le=1, description="By how much it grows; null: all at once.")
    VSA_decay_interval_steps: Steps = Field(1, description="It grows every so many optimizer steps.")
    training_cfg_rate: Fraction = Field(0.0, description="Probability that a caption becomes the empty text.")

    log_validation: bool = Field(False, description="Sample validation videos while training.")
    validation_steps: StepsOrZero = Field(0, description="Validate every so many optimizer steps.")
    on_validation_error: OnError = Field("skip", description="`skip` logs a failure and goes on, `error` ends the run.")
    validation_dataset_file: PathText | None = Field(None, description="JSON file of validation prompts.")
    validation_sampling_steps: SamplingSteps = Field((50,), description="Sampling steps; each gives its own videos.")
    validation_guidance_scale: GuidanceScales = Field(
        (5.0,), description="Each gives its own videos; 1 is no guidance."
    )

    trackers: Trackers = Field((), description="Where metrics go besides metrics.jsonl, which is always written.")
    tracker_project_name: str = Field("fastvideo", min_length=1, description="Project name for the trackers.")
    wandb_run_name: str | None = Field(None, min_length=1, description="Name of the run in wandb.")
    logging_steps: Steps = Field(1, description="Log metrics every so many optimizer steps.")

    def vsa_sparsity_at(self, step: int) -> float:
        """The fraction that vsa leaves out in a step, as FastVideo ramps it, but counted so that it ends at VSA_sparsity."""
        rate, done = self.VSA_decay_rate, step // self.VSA_decay_interval_steps
        # 0.9 by 0.1 is 9 times, of which rounding must not make 8 or 10
        if rate is None or done >= math.ceil(self.VSA_sparsity / rate - 1e-9):
            return self.VSA_sparsity
        return done * rate

    @property
    def data_sources(self) -> dict[str, DataSource]:
        """Each source of `data_path` by the key under which messages name its path."""
        if isinstance(self.data_path, tuple):
            return {f"training.data_path[{index}].path": source for index, source in enumerate(self.data_path)}
        return {} if self.data_path is None else {"training.data_path": DataSource(path=self.data_path)}
