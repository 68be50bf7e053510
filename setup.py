"""Packaging of the two packages `common` and `dreamerv2`, with the configurations inside."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "common" / "__init__.py").read_text())[1]

setup(
    name="dreamerv2",
    version=VERSION,
    description="DreamerV2: mastering Atari with discrete world models, in TensorFlow 2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10,<3.13",
    packages=[
        *find_packages(include=["common*", "dreamerv2*"]),
        "dreamerv2.agents",
        "dreamerv2.configs",
        "dreamerv2.golden",
    ],
    # In a checkout these stand beside the package, where a reader looks for them.
    package_dir={
        "dreamerv2.agents": "videos/agents",
        "dreamerv2.configs": "configs",
        "dreamerv2.golden": "tests/golden",
    },
    package_data={
        "common": ["py.typed"],
        "dreamerv2": ["py.typed"],
        "dreamerv2.agents": ["*.npz", "*.md"],
        "dreamerv2.configs": ["*.yaml"],
        "dreamerv2.dream": ["page/*"],
        "dreamerv2.golden": ["atari.npz"],
    },
    # The lower bounds are what Python 3.10 gets, the upper ones the next version that may break;
    # constraints.txt has the exact versions that were tested.
    install_requires=[
        "ale-py>=0.11,<0.13",
        "av>=14,<20",  # MP4 through imageio, without a system ffmpeg
        "gymnasium>=1.2,<2",
        "imageio>=2.37,<3",
        "matplotlib>=3.10,<4",
        "numpy>=2.1,<3",
        "opencv-python-headless>=4.12,<6",
        "pillow>=11,<14",
        "psutil>=6,<8",
        "rich>=14,<16",
        "ruamel.yaml>=0.18,<0.20",
        "scikit-learn>=1.6,<2",
        "scipy>=1.15,<2",
        "setuptools>=77,<90",  # its distutils is imported by tensorflow-probability
        "tensorboard>=2.20,<2.22",
        "tensorflow>=2.20,<2.22",
        "tensorflow-probability>=0.25,<0.26",
        "tf-keras>=2.20,<2.22",  # imported by tensorflow-probability
        "threadpoolctl>=3.5,<4",
    ],
    entry_points={"console_scripts": ["dreamerv2 = dreamerv2.__main__:main"]},
    extras_require={
        "cuda": ["tensorflow[and-cuda]>=2.20,<2.22"],
        # The page on which a person plays inside the model.
        "dream": ["starlette>=1.0,<2", "uvicorn>=0.40,<0.60", "websockets>=16,<18"],
        "browser": ["playwright>=1.50,<2"],  # to test that page; it drives Debian's chromium
        "legacy": ["atari-py==0.2.9", "gym==0.26.*"],
        "box2d": ["box2d>=2.3.10,<3", "pygame>=2.6,<3"],  # LunarLander and its like
        "classic": ["pygame>=2.6,<3"],  # to render CartPole, Pendulum and their like
        "crafter": ["crafter>=1.8.3,<2"],
        "dmc": ["dm-control>=1.0.50,<1.1", "mujoco>=3.17,<4"],  # fails with MuJoCo 4
        # The reference from the docstrings (make docs), and to run docs/tour.ipynb.
        "docs": [
            "ipykernel>=6.29,<8",
            "mkdocs>=1.6,<2",
            "mkdocstrings[python]>=0.29,<2",
            "nbclient>=0.10,<1",
        ],
        "minatar": ["minatar>=1.0.15,<2"],
        # Many runs on a cluster; pyarrow reads and writes object stores.
        "ray": ["grpcio>=1.70,<2", "pyarrow>=20,<28", "ray>=2.50,<3"],
        "test": [
            "hypothesis>=6.130,<7",
            "pip>=22.3",
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "wheel>=0.45,<1",
        ],
        "wandb": ["wandb>=0.19,<1"],
        "dev": ["mypy>=1.18,<3", "ruff>=0.12,<0.18"],
    },
)
