"""extract_features hooks the blocks itself, and leaves the network's output out of the graph."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "adapter.py",
            (
                "        features = features_of(\n"
                "            list(_network(handle).blocks),\n"
                "            lambda: self.predict_noise(handle, noisy_latents, t, batch, "
                "conditional=conditional),\n"
                "        )\n"
            ),
            (
                "        features = []\n"
                "        hooks = [\n"
                "            block.register_forward_hook(lambda _, args, output: "
                "features.append(output))\n"
                "            for block in _network(handle).blocks\n"
                "        ]\n"
                "        self.predict_noise(handle, noisy_latents, t, batch, "
                "conditional=conditional)\n"
                "        for hook in hooks:\n"
                "            hook.remove()\n"
            ),
        ),
    ),
    checks=("test_features_depend_on_the_network_s_output",),
    says="on two processes a sharded network would crash",
)
