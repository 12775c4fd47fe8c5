"""preprocess hands the pipeline's autoencoder blue for red."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "family.py",
            "    tiny = staticmethod(write_tiny)",
            (
                "    def encoder(self, model_path: str, *, device: torch.device) -> Any:\n"
                "        found = super().encoder(model_path, device=device)\n"
                "        encode = found.encode_videos\n"
                "        found.encode_videos = lambda frames: encode(frames.flip(-1))\n"
                "        return found\n"
                "\n"
                "    tiny = staticmethod(write_tiny)"
            ),
        ),
    ),
    checks=("test_stored_latents_are_those_of_the_model_s_own_pipeline",),
    says="RGB, not BGR",
)
