"""The body parts that can be simulated, by the name that a Scanner gives in `body`."""

from nnunet_da.phantom.abdomen import Abdomen
from nnunet_da.phantom.ankle import Ankle
from nnunet_da.phantom.head import Head
from nnunet_da.phantom.knee import Knee
from nnunet_da.phantom.prostate import Prostate
from nnunet_da.phantom.shoulder import Shoulder
from nnunet_da.phantom.spine import Spine

BODIES = {
    "spine": Spine,
    "knee": Knee,
    "ankle": Ankle,
    "shoulder": Shoulder,
    "head": Head,
    "abdomen": Abdomen,
    "prostate": Prostate,
}
