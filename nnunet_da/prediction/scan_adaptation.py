"""nnU-Net's predictor with a model that is adapted to each scan, and is the stored one again for the next."""

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch._dynamo import OptimizedModule

from nnunet_da.adaptation.randomisation import RandomisationSettings
from nnunet_da.adaptation.statistics import adapt_to_scan


class ScanAdaptingPredictor(nnUNetPredictor):
    """Adapts the network to every scan by `adapt_to_scan` before it predicts it.

    Nothing is kept from one scan to the next, files of models are not touched, and a scan gives the same result each
    time. Patches of the scan are some of those that are predicted, spread evenly over it.

    Parameters
    ----------
    test_time : TestTimeSettings
    keywords
        Those of nnUNetPredictor.
    """

    def __init__(self, test_time, **keywords):
        super().__init__(**keywords)
        self.test_time = test_time

    def predict_sliding_window_return_logits(self, input_image):
        stored = self.network
        # nnU-Net predicts in a mode in which nothing can be learnt.
        with torch.inference_mode(False), torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = self._adapted(input_image)
        try:
            return super().predict_sliding_window_return_logits(input_image)
        finally:
            self.network = stored

    def _adapted(self, image):
        network = self.network._orig_mod if isinstance(self.network, OptimizedModule) else self.network
        padded, _ = pad_nd_image(
            image.clone(), self.configuration_manager.patch_size, "constant", {"value": 0}, True, None
        )
        slicers = self._internal_get_sliding_window_slicers(padded.shape[1:])
        n = min(len(slicers), self.test_time.patches)
        chosen = [slicers[(2 * index + 1) * len(slicers) // (2 * n)] for index in range(n)]
        patches = [padded[slicer][None].clone().to(self.device) for slicer in chosen]
        exclusive = not self.label_manager.has_regions
        return adapt_to_scan(network.to(self.device), patches, self.test_time, RandomisationSettings(), exclusive)
