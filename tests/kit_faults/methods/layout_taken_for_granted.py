"""A number per sample is broadcast as if latents had two dims."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "(x0 - target) ** 2", "(1 - t[:, None] / 1000) * (x0 - target) ** 2"),),
    checks=("test_any_layout_of_latents_will_do",),
    says="a method knows no layout",
)
