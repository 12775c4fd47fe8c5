"""The student is trained without its conditioning."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "prepared, conditional=True, attn_kind", "prepared, conditional=False, attn_kind"),),
    checks=("test_the_student_sees_the_conditioning",),
    says="never sees a caption; pass conditional=True",
)
