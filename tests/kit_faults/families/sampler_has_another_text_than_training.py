"""The sampler adds words to each prompt that no caption of the data has."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "sampler.py",
            "embed(prompt.caption)",
            'embed(prompt.caption + ", high quality")',
        ),
    ),
    checks=("test_few_steps_are_sampled_as_they_are_trained",),
    says="training \\(predict_noise\\) calls the network otherwise.*differ: text",
)
