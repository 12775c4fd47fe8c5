"""The batch comes straight from the adapter, so that no caption is ever dropped."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "self.prepare_batch(batch,", "self.adapter.prepare_batch(batch,"),),
    checks=("test_captions_are_dropped_as_the_run_says",),
    says="training_cfg_rate: 1` changes nothing.*self.prepare_batch",
)
