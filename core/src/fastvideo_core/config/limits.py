"""The largest numbers that can be meant: a typing error beyond them is refused before it becomes a hanging or killed process."""

STEPS = 10**9  # optimizer steps, and all that is counted in them
SAMPLING_STEPS = 10_000  # in which one video is sampled
SAMPLES = 2**16  # in one forward pass, and passes in one step
PROCESSES = 2**16  # of a run, on all its machines
THREADS = 1024  # of one process
PIXELS = 2**14  # of a video's height or width
FRAMES = 2**16  # of a video
RANK = 2**16  # of a LoRA adapter
FACTOR = 10**9  # a weight, rate, scale or norm: what float32 still multiplies without infinities
