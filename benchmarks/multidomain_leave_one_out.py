"""The schemes of the multi-domain paper on real spines, leaving one subject of each domain out in turn.

    python benchmarks/multidomain_leave_one_out.py ../shared/data WORK --folds 0 1 2

All scans of vb1, vb2 and vb3, in 2D, as `nnunet_da.splits.leave_one_out` splits them; each is tested once. As many
folds as vb3 has subjects (23) and three models make 69 runs of the length of those of multidomain_spine.py, some five
minutes each: six hours on two CPU cores. `--folds` does some of them, and `--collect` joins what is done.
"""

from dataclasses import replace

from multidomain_spine import TASK, schemes
from spine_vb import write_all

from nnunet_da.splits import leave_one_out
from nnunet_da.study.command import main

TASK = replace(TASK, name="SpineLeaveOneOut", dataset_id=103, write=write_all, folds=leave_one_out)
MODELS = schemes()

if __name__ == "__main__":
    main([TASK], MODELS, description=__doc__)
