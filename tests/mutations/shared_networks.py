"""Mistakes in roles that share networks: whose adapters are on, who trains what, what a checkpoint holds."""

from __future__ import annotations

from tests.mutations.mutation import CORE, Mutation

TESTS = "core/tests/placing/test_shared_networks.py"
PLACED = (
    "core/tests/placing/test_placing.py::test_ops_keeps_its_results_where_hooks_call_other_operators_in_the_recompute"
)
RECOMPUTED = f"{TESTS}::test_every_gradient_is_that_of_a_network_that_recomputes_nothing"

SHARED_NETWORKS: tuple[Mutation, ...] = (
    Mutation(
        "a block recomputed with the adapters of whoever was called last",
        f"{CORE}/placing/shard.py",
        "_Entered([*(binding() for binding in bindings), lambda: again])",
        "again",
        (RECOMPUTED, f"{TESTS}::test_what_a_family_binds_holds_at_every_recompute"),
    ),
    Mutation(
        "selective checkpointing that counts the operators of FSDP's hooks",
        f"{CORE}/placing/shard.py",
        "(_Kept(mode) if isinstance(mode, TorchDispatchMode) else mode for mode in inner())",
        "inner()",
        (PLACED,),
    ),
    Mutation(
        "the teacher called with the student's adapters",
        f"{CORE}/weights/shared.py",
        "layer._active_adapter = [role]",
        'layer._active_adapter = ["student" if role == self.owner else role]',
        (f"{TESTS}::test_calls_for_nobody_and_active_dropout_are_errors",),
    ),
    Mutation(
        "a call outside of every role goes to the role before",
        f"{CORE}/weights/shared.py",
        "self._switch(before)",
        "self._switch(before or role)",
        (f"{TESTS}::test_calls_for_nobody_and_active_dropout_are_errors",),
    ),
    Mutation(
        "shared networks in train mode",
        f"{CORE}/contracts/roles.py",
        "module.train(self.trainable and self.base is None)",
        "module.train(self.trainable)",
        ("tests/test_shared_base.py::test_each_role_trains_its_own_adapters_alone_in_eval_mode",),
    ),
)
