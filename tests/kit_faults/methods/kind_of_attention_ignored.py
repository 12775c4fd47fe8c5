"""attn_kind is not passed on."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", ", conditional=True, attn_kind=self.config.attn_kind", ", conditional=True"),),
    checks=("test_the_kind_of_attention_is_passed_on_or_refused",),
    says="called as without it: pass attn_kind",
)
