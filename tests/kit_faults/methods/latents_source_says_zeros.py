"""latents_source says that no data is needed, and the method trains on data."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (
        (
            "method.py",
            "    def single_train_step(self, batch: Any",
            (
                "    @classmethod\n"
                "    def latents_source(cls, cfg: RunConfig) -> Any:\n"
                '        return "zeros"\n'
                "\n"
                "    def single_train_step(self, batch: Any"
            ),
        ),
    ),
    checks=("test_the_batch_is_asked_for_as_latents_source_says",),
    says=r"asks prepare_batch for data, and latents_source\(cfg\) says zeros",
)
