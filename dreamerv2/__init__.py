"""DreamerV2 (arXiv 2010.02193) in TensorFlow 2."""

from pathlib import Path

import common

__all__ = ["load"]


def _check_common() -> None:
    """Raises ImportError if `common` is some other package of that name."""
    ours = Path(__file__).resolve().parent.parent / "common"
    found = [Path(place).resolve() for place in getattr(common, "__path__", [common.__file__])]
    if ours not in found:
        raise ImportError(
            f"dreamerv2 needs the package common at {ours}, but another one comes first on the "
            f"import path: {', '.join(map(str, found))}"
        )


def __getattr__(name: str):
    # Only on use, because it imports TensorFlow. `train` stays in dreamerv2.api: here the name
    # belongs to the module dreamerv2.train.
    if name == "load":
        from dreamerv2.api import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_check_common()
__version__ = common.__version__
