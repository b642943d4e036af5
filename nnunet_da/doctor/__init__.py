"""What `nnunet-da doctor` examines: the environment, the installation and, if one is named, a dataset.

Every check is a small generator of `Finding`s, which say in words what is well and what is not, and how to mend it.
"""

from nnunet_da.doctor.findings import Finding


def examine(dataset=None, plans_name="nnUNetPlans"):
    """Yields every finding, one by one as they are made: the checks take some seconds, mostly to import nnU-Net.

    Parameters
    ----------
    dataset : str or None
        Id or name of a dataset to examine too.
    plans_name : str
        Its plans.
    """
    from nnunet_da.doctor import dataset as dataset_checks
    from nnunet_da.doctor import discovery, environment, installation

    yield from environment.examine()
    yield from installation.examine()
    yield from discovery.examine()
    yield from environment.check_devices()
    if dataset is not None:
        yield from dataset_checks.examine(dataset, plans_name)


__all__ = ["Finding", "examine"]
