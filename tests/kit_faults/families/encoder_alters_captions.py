"""preprocess encodes captions in lower case, the sampler as they are."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "encoder.py",
            "embed(caption) for caption in captions",
            "embed(caption.lower()) for caption in captions",
        ),
    ),
    checks=("test_few_steps_are_sampled_as_they_are_trained",),
    says="training \\(predict_noise\\) calls the network otherwise.*differ: text",
)
