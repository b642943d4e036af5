"""nnunet_da: domain adaptation for nnU-Net v2.

Imported at the start of every interpreter of the environment (see `nnunet_da.discovery`), so nothing heavy stands here.
"""

import os as _os

__version__ = "0.1.0"

# In a source checkout trainers/ and dataset_conversion/ stand beside this folder rather than in it.
_beside = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))
if _os.path.isfile(_os.path.join(_beside, "nnunet_da", "_packaging", "backend.py")):
    __path__.append(_beside)
