"""The class of the method derives from nn.Module alone."""

from tests.kit_faults.fault import METHOD, Fault

FAULT = Fault(
    METHOD,
    (("method.py", "class MineMethod(DistillMethod[MineNeeds]):", "class MineMethod(torch.nn.Module):"),),
    checks=("test_it_is_healthy_in_the_list_of_plug_ins",),
    says="is MineMethod, which is no DistillMethod: subclass fastvideo_core.DistillMethod",
)
