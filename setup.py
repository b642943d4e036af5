"""Package list: trainers/ and dataset_conversion/ stand at the top level, and install inside nnunet_da."""

from setuptools import find_packages, setup

BESIDE = ("trainers", "dataset_conversion")

setup(
    packages=[
        *find_packages(include=["nnunet_da", "nnunet_da.*"], exclude=["nnunet_da._packaging*"]),
        *(f"nnunet_da.{name}" for name in BESIDE),
    ],
    package_data={
        "nnunet_da.evaluation.report": ["*.html", "*.css", "*.js"],
        "nnunet_da.submission.container": ["Dockerfile", "dockerignore", "*.sh"],
        "nnunet_da.workflow": ["*.smk", "*.yaml"],
    },
    package_dir={f"nnunet_da.{name}": name for name in BESIDE},
)
